# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that only one task of the host does at a time. The lock ends with the task, however that ends."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.owner import os_told

LOCKS = "/run/anfitrion"


@contextmanager
def held(what: str, words: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock of C(what). Raises KvmError with C(words) while another task has it, unless that is to be waited for."""
    with os_told(LOCKS):
        os.makedirs(LOCKS, mode=0o700, exist_ok=True)
        file = open(os.path.join(LOCKS, hashlib.sha256(what.encode()).hexdigest()[:16]), "w", encoding="ascii")  # noqa: SIM115  held below
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise KvmError(words) from None
        yield
