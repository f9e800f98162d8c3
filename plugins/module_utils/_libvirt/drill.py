# SPDX-License-Identifier: GPL-3.0-or-later
"""A throw-away guest that boots from a backup: no network, no device of the host, nothing written to the backup."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import SIZE
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import image
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

# What ties a guest to its host or to the world, and what a second guest with the same would fight over.
TIES = (
    "interface", "hostdev", "graphics", "channel", "console", "serial", "parallel", "filesystem", "shmem", "tpm", "redirdev",
    "vsock", "audio", "sound",
)  # fmt: skip
UNIQUE = ("uuid", "metadata", "genid", "cputune", "numatune", "memoryBacking", "resource", "seclabel")
SEARCHABLE = 0o711  # QEMU is another user
PLACE = "/var/lib/libvirt/images"  # where the distribution's rules let QEMU read, if it is there


def boot(session: Libvirt, definition: str, images: dict[str, str], drill: dict[str, Any]) -> None:
    """Boot a guest of the definition from overlays on the images; return when it says that it is ready.

    Raises KvmError with the end of what it said instead. The guest goes with the connection if this process ends.
    """
    tree = _xml.parse(Root().text(definition) or "")
    place = PLACE if os.path.isdir(PLACE) else None
    with tempfile.TemporaryDirectory(prefix="anfitrion-drill-", dir=place) as top:
        os.chmod(top, SEARCHABLE)
        log = os.path.join(top, "serial.log")
        _disarm(tree, top, log, images, drill)
        with told("drill: the throw-away guest does not start"):
            domain = session.connection.createXML(_xml.text_of(tree), libvirt.VIR_DOMAIN_START_AUTODESTROY)
        try:
            _wait(domain, log, drill["ready"], drill.get("timeout", 120))
        finally:
            _end(domain)


def _disarm(tree: Any, top: str, log: str, images: dict[str, str], drill: dict[str, Any]) -> None:
    """Make the definition one of a guest that can harm nothing."""
    _xml.put(tree, "name", f"{_xml.get(tree, 'name')[0]}-drill-{os.getpid()}")
    tree.attrib.pop("id", None)
    for word in UNIQUE:
        _take_out(tree, word)
    if "memory" in drill:
        for path in ("memory", "currentMemory"):
            _xml.put(tree, path, SIZE.to_xml(drill["memory"]), SIZE.unit)
    devices = _xml.make(tree, "devices")
    for word in TIES:
        _take_out(devices, word)
    for disk in _xml.find_all(devices, "disk"):
        target = str(_xml.get(disk, "target/@dev")[0])
        if target in images:
            _onto_overlay(disk, os.path.join(top, f"{target}.qcow2"), images[target])
        else:
            devices.remove(disk)
    for tag in ("serial", "console"):
        one = _xml.add(devices, tag)
        one.set("type", "file")
        _xml.put(one, "source/@path", log)
        _xml.put(one, "target/@port", "0")


def _take_out(element: Any, word: str) -> None:
    for one in _xml.find_all(element, word):
        element.remove(one)


def _onto_overlay(disk: Any, overlay: str, below: str) -> None:
    """Have a disk be an empty image on that of the backup, which so stays as it is."""
    image.create_over(overlay, below)
    for word in ("source", "backingStore", "mirror", "serial", "auth", "encryption"):
        _take_out(disk, word)
    disk.set("type", "file")
    _xml.put(disk, "driver/@type", "qcow2")
    _xml.put(disk, "source/@file", overlay)


def _wait(domain: Any, log: str, ready: str, timeout: int) -> None:
    deadline = time.monotonic() + timeout
    while True:
        said = Root().text(log) or ""
        if ready in said:
            return
        with told("drill: cannot read the state of the throw-away guest"):
            alive = domain.isActive()
        if not alive or time.monotonic() > deadline:
            why = f"did not say {ready!r} within {timeout} s" if alive else "ended by itself"
            raise KvmError(f"drill: the throw-away guest {why}; the end of what it said: {said[-300:]!r}")
        time.sleep(0.2)


def _end(domain: Any) -> None:
    try:
        domain.destroy()
    except libvirt.libvirtError:
        return  # it ended by itself
