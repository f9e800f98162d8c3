# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image lies on, as the headers of the files say: nothing of their content is looked at, and a guest that runs is not disturbed."""

from __future__ import annotations

import os
import struct

DEEPEST = 200  # of a chain that is followed; libvirt takes no more
QCOW2 = b"QFI\xfb"


def chain_of(path: str) -> list[str]:
    """Return the files that a qcow2 image lies upon, nearest first, as its headers name them."""
    found: list[str] = []
    while len(found) < DEEPEST:
        below = _backing_in_header(path)
        if below is None or below in found:
            break
        found.append(below)
        path = below
    return found


def _backing_in_header(path: str) -> str | None:
    """Return the backing file that the header of a qcow2 image names (docs/interop/qcow2 of QEMU: bytes 0 to 20)."""
    try:
        with open(path, "rb") as file:
            header = file.read(20)
            if len(header) < 20 or header[:4] != QCOW2:
                return None
            offset, size = struct.unpack(">QI", header[8:20])
            if not offset or not 0 < size < 1024:
                return None
            file.seek(offset)
            name = file.read(size).decode(errors="surrogateescape")
    except OSError:
        return None
    return os.path.realpath(os.path.join(os.path.dirname(path), name)) if not name.startswith("json:") else None
