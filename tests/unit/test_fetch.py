# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files of sums as distributions write them."""

from __future__ import annotations

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._node.fetch import digests_in

pytestmark = pytest.mark.ring(1)

ONE, OTHER = "a" * 64, "B" * 64


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{ONE}  disk.qcow2\n{OTHER}  disk.raw\n", {ONE}),
        (f"{ONE} *disk.qcow2\n", {ONE}),
        (f"{ONE}  ./images/disk.qcow2\n{OTHER}  olddisk.qcow2\n", {ONE}),
        (f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# disk.qcow2: 12 bytes\nSHA256 (disk.qcow2) = {OTHER}\n", {OTHER.lower()}),
        (f"SHA512 (disk.qcow2) = {'c' * 128}\n", set()),
        (f"{'c' * 128}  disk.qcow2\n", set()),
        (f"{OTHER}\n", {OTHER.lower()}),
        (f"{OTHER}\n{ONE}\n", set()),
        (f"{ONE}  disk.qcow2\n{OTHER}  old/disk.qcow2\n", {ONE, OTHER.lower()}),
        ("<html>not found</html>", set()),
    ],
)
def test_a_file_of_sums_is_understood(text: str, found: set[str]) -> None:
    assert digests_in(text, "sha256", "disk.qcow2") == found
