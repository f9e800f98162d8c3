# SPDX-License-Identifier: GPL-3.0-or-later
"""A small ISO 9660 image with Joliet names, the same bytes for the same content: cloud-init's NoCloud seed."""

from __future__ import annotations

import struct
from typing import Any

SECTOR = 2048
LABEL = "cidata"  # by which cloud-init knows the medium
FIRST_FILE = 25  # sectors 0-15 are the system's, then three descriptors, four path tables and two directories
ROOT, JOLIET_ROOT = 23, 24
NO_TIME = bytes(7)


def _both16(value: int) -> bytes:
    return struct.pack("<H", value) + struct.pack(">H", value)


def _both32(value: int) -> bytes:
    return struct.pack("<I", value) + struct.pack(">I", value)


def _sectors(size: int) -> int:
    return (size + SECTOR - 1) // SECTOR


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % SECTOR)


def _record(name: bytes, sector: int, size: int, directory: bool) -> bytes:
    """Return a directory record (ECMA-119, 9.1)."""
    body = (
        b"\0" + _both32(sector) + _both32(size) + NO_TIME + bytes([2 if directory else 0, 0, 0]) + _both16(1)
        + bytes([len(name)]) + name + (b"\0" if len(name) % 2 == 0 else b"")
    )  # fmt: skip
    return bytes([len(body) + 1]) + body


def _directory(sector: int, files: list[tuple[bytes, int, int]]) -> bytes:
    """Return the directory that holds itself, its parent (itself too) and the files (name, sector, size)."""
    own = [_record(b"\0", sector, SECTOR, True), _record(b"\1", sector, SECTOR, True)]
    return _padded(b"".join(own + [_record(name, place, size, False) for name, place, size in sorted(files)]))


def _descriptor(kind: int, joliet: bool, sectors: int, tables: tuple[int, int]) -> bytes:
    """Return a primary or supplementary volume descriptor (ECMA-119, 8.4 and 8.5)."""

    def text(value: str, size: int) -> bytes:
        raw = value.encode("utf-16-be") if joliet else value.encode("ascii")
        blank = b"\0 " if joliet else b" "
        return (raw + blank * size)[:size]

    root = ROOT if not joliet else JOLIET_ROOT
    escape = b"%/E" if joliet else b""
    dates = (b"0" * 16 + b"\0") * 4
    data = (
        bytes([kind]) + b"CD001\1\0" + text("", 32) + text(LABEL, 32) + bytes(8) + _both32(sectors) + escape.ljust(32, b"\0")
        + _both16(1) + _both16(1) + _both16(SECTOR) + _both32(10) + struct.pack("<II", tables[0], 0) + struct.pack(">II", tables[1], 0)
        + _record(b"\0", root, SECTOR, True) + text("", 128) * 4 + text("", 37) * 3 + dates + b"\1\0"
    )  # fmt: skip
    return _padded(data)


def _path_table(root: int, order: str) -> bytes:
    return _padded(b"\1\0" + struct.pack(f"{order}IH", root, 1) + b"\0\0")


def seed_image(files: dict[str, bytes]) -> bytes:
    """Return the image that holds the files by name, all in its root."""
    placed: list[tuple[str, int, bytes]] = []
    sector = FIRST_FILE
    for name, data in sorted(files.items()):
        placed.append((name, sector, data))
        sector += max(1, _sectors(len(data)))
    plain = [(f"{name.upper().replace('-', '_')};1".encode("ascii"), place, len(data)) for name, place, data in placed]
    joliet = [(name.encode("utf-16-be"), place, len(data)) for name, place, data in placed]
    parts: list[Any] = [
        bytes(16 * SECTOR),
        _descriptor(1, False, sector, (19, 20)),
        _descriptor(2, True, sector, (21, 22)),
        _padded(b"\xffCD001\1"),
        _path_table(ROOT, "<"), _path_table(ROOT, ">"), _path_table(JOLIET_ROOT, "<"), _path_table(JOLIET_ROOT, ">"),
        _directory(ROOT, plain),
        _directory(JOLIET_ROOT, joliet),
        *(_padded(data) or bytes(SECTOR) for _name, _place, data in placed),
    ]  # fmt: skip
    return b"".join(parts)
