# SPDX-License-Identifier: GPL-3.0-or-later
"""Mode, owner and group of files and directories."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Step


@contextmanager
def os_told(path: str) -> Iterator[None]:
    """Turn an error of the operating system into KvmError that names the path."""
    try:
        yield
    except OSError as error:
        raise KvmError(f"{path}: {error.strerror}") from error


def permissions_of(path: str) -> dict[str, Any]:
    """Return mode, owner and group of a file as the table has them."""
    with os_told(path):
        found = os.stat(path)
    return {"mode": f"0{stat.S_IMODE(found.st_mode) & 0o777:03o}", "owner": found.st_uid, "group": found.st_gid}


def permission_step(path: str, have: dict[str, Any], wanted: dict[str, Any], after: Callable[[], None] | None = None) -> Step:
    """Return the step that sets mode, owner and group of a file; C(after) is done after it, and after its undoing."""

    def put(values: dict[str, Any]) -> None:
        with os_told(path):
            os.chown(path, values.get("owner", -1), values.get("group", -1))
            if "mode" in values:
                os.chmod(path, int(values["mode"], 8))
        if after is not None:
            after()

    return Step(f"set owner and mode of {path}", lambda: put(wanted), lambda: put({**have}))
