# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes from an address: fetched, held against its checksum, and kept on the host when asked to."""

from __future__ import annotations

import errno
import hashlib
import hmac
import http.client
import os
import re
import shutil
import stat
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from ansible.module_utils.urls import open_url

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import lock
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.owner import os_told

TIMEOUT_S = 60
CHUNK = 1 << 20
MOST_SUMS = 8 << 20  # bytes; the sums of a whole mirror are some hundred KB
OTHERS = stat.S_IWGRP | stat.S_IWOTH


def fetch(url: str, path: str) -> None:
    """Write what is at an address into a new file. Raises KvmError, also where it ends too early."""
    try:
        with _answer(url, "source.url") as answer, open(path, "xb") as file:
            shutil.copyfileobj(answer, file, CHUNK)
            told = answer.headers.get("Content-Length")
            if told and told.isdigit() and file.tell() != int(told):
                raise KvmError(f"source.url: {url} ended after {file.tell()} of {told} bytes")
    except OSError as error:
        raise KvmError(f"{path}: {error.strerror}") from error


@contextmanager
def _answer(url: str, option: str) -> Iterator[Any]:
    try:
        with open_url(url, timeout=TIMEOUT_S) as answer:
            yield answer
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise KvmError(f"{option}: cannot fetch {url}: {getattr(error, 'reason', error)}") from error


# Checksums ------------------------------------------------------------------------------------------------------


def literal(checksum: str, of: str) -> str:
    """Return a checksum as C(algorithm:digits), from the file of sums that it names if it names one; C(of) is an address or a path."""
    algorithm, _colon, value = checksum.partition(":")
    if "/" not in value:
        return f"{algorithm}:{value.lower()}"
    if value.startswith("/"):
        with os_told(value), open(value, "rb") as file:
            text = file.read(MOST_SUMS)
    else:
        with _answer(value, "source.checksum") as answer:
            text = answer.read(MOST_SUMS)
    name = os.path.basename(unquote(urlsplit(of).path) if "://" in of else of)
    found = digests_in(text.decode("utf-8", "replace"), algorithm, name)
    if len(found) != 1:
        what = "two different digests" if found else "no digest"
        raise KvmError(f"source.checksum: {value} has {what} of {algorithm} for {name}")
    return f"{algorithm}:{found.pop()}"


def digests_in(text: str, algorithm: str, name: str) -> set[str]:
    """Return the digests that a file of sums has for a file: lines of GNU or of BSD, or a digest alone. Of a name, the directory is no part."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    digits = rf"([0-9a-fA-F]{{{hashlib.new(algorithm).digest_size * 2}}})"
    if len(lines) == 1 and re.fullmatch(digits, lines[0]):
        return {lines[0].lower()}
    found = set()
    for line in lines:
        gnu = re.fullmatch(rf"{digits} [ *]?(.+)", line)
        bsd = re.fullmatch(rf"{algorithm} ?\((.+)\) ?= ?{digits}", line, re.IGNORECASE)
        for path, digest in ((gnu[2], gnu[1]),) if gnu else ((bsd[1], bsd[2]),) if bsd else ():
            if os.path.basename(path) == name:
                found.add(digest.lower())
    return found


def require_digest(path: str, checksum: str, shown: str) -> None:
    """Raise KvmError for a file that has not this C(algorithm:digits)."""
    found = digest_of(path, checksum)
    if not hmac.compare_digest(found, checksum):
        raise KvmError(f"source.checksum: {shown} has {found}, asked {checksum}")


def digest_of(path: str, checksum: str) -> str:
    """Return the digest of a file as C(algorithm:digits), of the same algorithm as C(checksum)."""
    algorithm = checksum.partition(":")[0]
    digest = hashlib.new(algorithm)
    with os_told(path), open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return f"{algorithm}:{digest.hexdigest()}"


# The cache ------------------------------------------------------------------------------------------------------


def cached(directory: str, url: str, checksum: str) -> str:
    """Return the path of what is at an address in a cache, fetched if it is not there with this C(algorithm:digits)."""
    _require_own(directory)
    name = hashlib.sha256(f"{url}\0{checksum}".encode()).hexdigest()
    path = os.path.join(directory, name)
    with lock.held(path, f"{path} is being fetched by another task", wait=True):
        if os.path.lexists(path) and not os.path.islink(path) and hmac.compare_digest(digest_of(path, checksum), checksum):
            return path
        draft = f"{path}.draft"
        with os_told(draft):
            if os.path.lexists(draft):
                os.unlink(draft)  # of a run that was killed: the lock says that it is over
        try:
            fetch(url, draft)
            require_digest(draft, checksum, url)
            with os_told(path):
                os.chmod(draft, 0o600)
                _flushed(draft)
                os.replace(draft, path)
        finally:
            if os.path.lexists(draft):
                os.unlink(draft)
    return path


def _require_own(directory: str) -> None:
    """Make the directory of a cache. Raises KvmError where others may write: what was checked could be another file when it is read."""
    with os_told(directory):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        found = os.stat(directory)
    if found.st_uid != os.geteuid() or found.st_mode & OTHERS:
        raise KvmError(f"source.cache: others than its owner may write to {directory}; give a directory of root's alone")


def _flushed(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has nothing to flush
            raise
    finally:
        os.close(handle)
