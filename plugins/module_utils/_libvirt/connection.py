# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to libvirt with a deadline, and its errors as ours."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import TEXT
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError

try:
    import libvirt

    LIBVIRT_IMPORT_ERROR = None
except ImportError:
    libvirt = None
    LIBVIRT_IMPORT_ERROR = traceback.format_exc()

LIBVIRT = ("libvirt", LIBVIRT_IMPORT_ERROR)
BUSY_S = 60
# Codes do not tell these from other faults: the first is an "internal error", the others an "invalid operation".
BUSY = ("has asynchronous jobs running", "is still being allocated", "is still in use")
OPEN_DEADLINE_S = 30  # the first open after a boot starts the daemon; virConnectOpen itself has no limit

URI = _fields.Field(
    "uri", None, TEXT, "The libvirt daemon to work with, a connection URI as libvirt writes them.",
    default="qemu:///system",
)  # fmt: skip


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn an error of libvirt into KvmError; C(what) is what was being done."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise KvmError(f"{what}: {words(error)}") from error


def words(error: Any) -> str:
    """Return libvirt's own words for an error, without its full stop."""
    return str(error.get_error_message() or error).rstrip(".").strip()


def code(error: Any) -> int:
    """Return the number of a libvirt error, VIR_ERR_…"""
    return int(error.get_error_code() or 0)


def patiently(call: Callable[[], Any]) -> Any:
    """Return what a call of libvirt returns; where libvirt is busy with the same object, it is asked again for BUSY_S seconds."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            return call()
        except libvirt.libvirtError as error:
            if not any(word in words(error) for word in BUSY) or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def connect(uri: str) -> Any:
    """Return an open virConnect. Raises KvmError when the daemon cannot be reached within OPEN_DEADLINE_S seconds."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # else libvirt prints every error on stderr
    outcome: list[Any] = []
    worker = threading.Thread(target=_open, args=(uri, outcome), daemon=True)
    worker.start()
    worker.join(OPEN_DEADLINE_S)
    if not outcome:
        raise KvmError(f"cannot reach libvirt at {uri}: no answer within {OPEN_DEADLINE_S} s")
    if isinstance(outcome[0], Exception):
        raise KvmError(f"cannot reach libvirt at {uri}: {words(outcome[0])}")
    return outcome[0]


def _open(uri: str, outcome: list[Any]) -> None:
    try:
        outcome.append(libvirt.open(uri))
    except libvirt.libvirtError as error:
        outcome.append(error)


class Libvirt:
    """What a task on libvirt objects holds: the connection and the objects that one listing call found, by name.

    Objects made or removed by the task are kept up to date here, so that it needs no second listing.
    """

    def __init__(self, params: Any, check: bool) -> None:
        self.params = params
        self.check = check
        self.connection = connect(params["uri"])
        self._listed: dict[str, dict[str, Any]] = {}
        self._remembered: dict[str, Any] = {}
        self.lock = threading.RLock()  # several objects are worked on at a time
        self._closers: list[Any] = []

    def closing(self, thing: Any) -> Any:
        """Return a thing that is closed with the session."""
        self._closers.append(thing)
        return thing

    def close(self) -> None:
        """Close the connection; a dead daemon is no fault any more."""
        for thing in self._closers:
            thing.close()
        try:
            self.connection.close()
        except libvirt.libvirtError:
            return

    def all(self, kind: str, lister: Callable[[], list[Any]]) -> dict[str, Any]:
        """Return every object of a kind by name; listed once."""
        with self.lock, told(f"cannot list the {kind}"):
            if kind not in self._listed:
                self._listed[kind] = {handle.name(): handle for handle in lister()}
            return self._listed[kind]

    def once(self, what: str, make: Callable[[], Any]) -> Any:
        """Return what C(make) returned the first time it was asked for in this task."""
        with self.lock:
            if what not in self._remembered:
                self._remembered[what] = make()
            return self._remembered[what]

    @property
    def driver(self) -> str:
        """The driver that the URI names, such as C(qemu) or C(test)."""
        return str(self.params["uri"]).partition(":")[0].partition("+")[0]

    @property
    def on_this_host(self) -> bool:
        """Tell whether the daemon manages the machine that this runs on, so that its files can be looked at."""
        scheme, _colon, rest = str(self.params["uri"]).partition("://")
        return scheme in ("qemu", "qemu+unix") and rest.startswith("/")

    def domains(self) -> dict[str, Any]:
        return self.all("domains", lambda: self.connection.listAllDomains(0))

    def networks(self) -> dict[str, Any]:
        return self.all("networks", lambda: self.connection.listAllNetworks(0))

    def pools(self) -> dict[str, Any]:
        return self.all("pools", lambda: self.connection.listAllStoragePools(0))


__all__ = ["LIBVIRT", "URI", "Libvirt", "code", "connect", "libvirt", "patiently", "told", "words"]
