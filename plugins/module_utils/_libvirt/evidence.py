# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest looks like from outside when it does not do what it was waited for."""

from __future__ import annotations

import os
import re
import struct
import zlib
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.life import state_of

LINES = 20
MOST_BYTES = 16384  # of the end of a log
LOGS = "/var/log/libvirt/qemu"
MOST_PIXELS = 64 * 1024 * 1024


def evidence(session: Libvirt, name: str, handle: Any) -> dict[str, Any]:
    """Return state, console tail, libvirt's messages, the tail of QEMU's log and a picture of the screen, where there are any."""
    found: dict[str, Any] = {"state": state_of(handle)}
    found["console"] = console_tail(session, handle)
    found["messages"] = _asked(lambda: list(handle.messages(0))) if hasattr(handle, "messages") else None
    found["qemu_log"] = tail(os.path.join(LOGS, f"{name}.log")) if session.on_this_host else None
    found["screenshot"] = _screenshot(session, name, handle)
    return {what: value for what, value in found.items() if value}


def _asked(call: Callable[[], Any]) -> Any | None:
    """Return what libvirt answers, None when it has no answer: evidence that cannot be had is no second fault."""
    try:
        return call()
    except libvirt.libvirtError:
        return None


def console_file(handle: Any) -> tuple[str | None, bool]:
    """Return the file that keeps what the guest's serial console prints, None if its definition names none; and whether it is added to."""
    tree = _asked(lambda: _xml.parse(handle.XMLDesc(0)))
    for path in ("devices/serial/log", "devices/console/log", "devices/serial[@type='file']/source") if tree is not None else ():
        holder = _xml.find(tree, path)
        file = holder.get("file", holder.get("path")) if holder is not None else None
        if holder is not None and file:
            return file, holder.get("append") == "on"
    return None, False


def console_tail(session: Libvirt, handle: Any) -> list[str]:
    file = console_file(handle)[0] if session.on_this_host else None
    return tail(file) if file else []


def tail(path: str) -> list[str]:
    """Return the last lines of a file, without control sequences; none where it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - MOST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return plain(text).splitlines()[-LINES:]


def plain(text: str) -> str:
    """Return what a terminal would show of a text: no escape sequences, no carriage returns."""
    return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|c)", "", text).replace("\r", "").replace("\0", "")


def _screenshot(session: Libvirt, name: str, handle: Any) -> str | None:
    """Save a picture of the guest's screen beside QEMU's log; return its path."""
    if not session.on_this_host or not os.path.isdir(LOGS):
        return None

    def take() -> tuple[str, bytes]:
        stream = session.connection.newStream(0)
        kind = handle.screenshot(stream, 0, 0)
        data = bytearray()
        while part := stream.recv(65536):
            data += part
        stream.finish()
        return kind, bytes(data)

    shot = _asked(take)
    if shot is None:
        return None
    kind, data = shot
    picture = data if kind == "image/png" else png_of(data)
    if picture is None:
        return None
    path = os.path.join(LOGS, f"{name}.screenshot.png")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(picture)
    return path


def png_of(ppm: bytes) -> bytes | None:
    """Return a PNG of a binary PPM (P6, 8 bits), which is what QEMU draws; None when it is none."""
    head = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", ppm)
    if not head:
        return None
    width, height = int(head[1]), int(head[2])
    pixels = ppm[head.end() :]
    if not 0 < width * height <= MOST_PIXELS or len(pixels) < width * height * 3:
        return None
    rows = b"".join(b"\0" + pixels[row * width * 3 : (row + 1) * width * 3] for row in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
