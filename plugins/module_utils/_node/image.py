# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images as QEMU sees them (qemu-img(1)): what a file really is, and what it leads to."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Output, Root

# An image is input of somebody else: what looks at it gets this much memory and time (nova's limits are alike).
LIMITS = ["prlimit", "--as=1073741824", "--cpu=30", "--"]
# What writes a new file goes with its task: nothing writes under the hands of the next one, which begins anew.
ALONG = ["setpriv", "--pdeathsig", "KILL", "--"]
HOURS = 12 * 3600.0  # a disk of many TB takes as long as it takes
BUSY_S = 60  # how long another qemu-img is waited for, such as that of a task that was killed: what it writes in place, it ends
TRIED = ("raw", "qcow", "qcow2", "qed", "vmdk", "vdi", "vpc", "vhdx", "parallels", "dmg", "bochs", "cloop")
READ_ONLY = ("dmg", "bochs", "cloop")


def info(path: str, kind: str) -> dict[str, Any]:
    """Return what qemu-img tells of an image, opened as of this format and nothing else."""
    done = Root().run([*LIMITS, "qemu-img", "info", "-U", "--output=json", "-f", kind, path], timeout=60)
    if done.rc:
        raise KvmError(f"{path} is no image of format {kind}: {_last(done)}")
    found: dict[str, Any] = json.loads(done.out)
    return found


def probed(path: str) -> str:
    """Return the format that an image seems to have; for telling people, never for opening it."""
    done = Root().run([*LIMITS, "qemu-img", "info", "-U", "--output=json", path], timeout=60)
    return str(json.loads(done.out)["format"]) if done.rc == 0 else "unknown"


def _last(done: Output) -> str:
    """Return why a command failed, in its own words if it had any."""
    return (done.err.strip().splitlines() or [f"it was ended by signal {-done.rc}" if done.rc < 0 else "no reason given"])[-1]


def leads_to(found: dict[str, Any]) -> list[str]:
    """Return the other files that an image has its content from: its backing file, its data file, extents of VMDK."""
    own = found.get("format-specific", {}).get("data", {})
    others = [found.get("full-backing-filename") or found.get("backing-filename"), own.get("data-file")]
    if found.get("format") == "vmdk":
        others += [extent["filename"] for extent in own.get("extents", []) if extent.get("filename") != found["filename"]]
    return [str(one) for one in others if one]


def require_trusted(path: str, kind: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    """Return what qemu-img tells of an image. Raises KvmError where it leads to a file outside the allowed directories."""
    found = info(path, kind)
    here = os.path.dirname(os.path.realpath(path))
    for other in leads_to(found):
        target = os.path.realpath(os.path.join(here, other))
        if not other.startswith("/") and ":" in other.split("/")[0]:
            raise KvmError(f"{path} has its data from {other!r}, which is no file; it is not trusted")
        if not any(target.startswith(f"{os.path.realpath(top)}/") for top in allowed):
            raise KvmError(f"{path} has its data from {target}, outside the pools of this host; it is not trusted")
    return found


def chain_depth(path: str, kind: str) -> int:
    """Return how many images lie on each other here, this one included."""
    if kind == "raw":
        return 1
    done = Root().run([*LIMITS, "qemu-img", "info", "-U", "--backing-chain", "--output=json", "-f", kind, path], timeout=60)
    if done.rc:
        raise KvmError(f"{path}: its chain of images is broken: {_last(done)}")
    return len(json.loads(done.out))


def convert(source: str, kind: str, target: str, wanted: str, options: tuple[str, ...] = ()) -> None:
    """Copy an image into a new one of another format, or the same; what is zero takes no space."""
    _qemu_img("convert", "-f", kind, "-O", wanted, *options, source, target)


def fill(source: str, kind: str, device: str) -> None:
    """Copy an image into a block device that is there and large enough."""
    _qemu_img("convert", "-n", "-f", kind, "-O", "raw", source, device)


def require_same(one: str, kind: str, other: str, wanted: str) -> None:
    """Raise KvmError unless two images hold the same content."""
    if not same(one, kind, other, wanted):
        raise KvmError(f"{other} is not what {one} holds; the copy is thrown away")


def same(one: str, kind: str, other: str, wanted: str) -> bool:
    """Tell whether two images hold the same content, as a guest would read it."""
    done = Root().run(["qemu-img", "compare", "-U", "-f", kind, "-F", wanted, one, other], timeout=HOURS)
    if done.rc not in (0, 1):
        raise KvmError(f"cannot compare {one} with {other}: {_last(done)}")
    return done.rc == 0


def holds_changes(path: str, kind: str) -> bool:
    """Tell whether an image holds anything of its own, which the image below does not."""
    found = json.loads(_qemu_img("map", "-U", "--output=json", "-f", kind, path))
    return any(extent["depth"] == 0 and extent.get("present", True) for extent in found)


def _qemu_img(*words: str) -> str:
    done = Root().run([*ALONG, "qemu-img", *words], timeout=HOURS)
    if done.rc:
        raise KvmError(f"qemu-img {words[0]}: {_last(done)}")
    return done.out


def _in_place(*words: str) -> None:
    """Have qemu-img change an image that holds data; begun, it is ended, whatever becomes of the task."""
    deadline = time.monotonic() + BUSY_S
    while True:
        done = Root().run(["qemu-img", *words], timeout=HOURS)
        if not done.rc:
            return
        if "Failed to get" not in done.err or time.monotonic() > deadline:
            raise KvmError(f"qemu-img {words[0]}: {_last(done)}")
        time.sleep(0.2)


def create(path: str, kind: str, size: int, options: tuple[str, ...] = ()) -> None:
    """Make an image that is not there yet."""
    _qemu_img("create", "-q", "-f", kind, *options, path, str(size))


def create_over(path: str, below: str) -> None:
    """Make an empty qcow2 image that lies on another."""
    _qemu_img("create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", path)


def lay_on(path: str, below: str, kind: str) -> None:
    """Have an image read what it does not hold from another; nothing is copied."""
    _qemu_img("rebase", "-u", "-f", "qcow2", "-b", below, "-F", kind, path)


def resize(path: str, kind: str, size: int) -> None:
    """Give an image another size; it only grows."""
    _qemu_img("resize", "-q", "-f", kind, path, str(size))


def differences(source: str, below: str, path: str) -> None:
    """Make a qcow2 image on another, C(below), that holds what a raw source has otherwise."""
    _qemu_img("create", "-q", "-f", "qcow2", "-b", source, "-F", "raw", path)
    _qemu_img("rebase", "-f", "qcow2", "-b", below, "-F", "qcow2", path)


def rebase(path: str, kind: str) -> None:
    """Copy what an image has from those below into it, and have it stand alone. What is below stays until all is copied."""
    _in_place("rebase", "-f", kind, "-b", "", path)


def commit(path: str, kind: str) -> None:
    """Write what an image holds of its own into the one below, and empty it."""
    _in_place("commit", "-q", "-f", kind, path)


def formats() -> list[dict[str, Any]]:
    """Return what QEMU on this host does with each format, by trying it on a small image."""
    host = Root()
    listed = re.split(r"Supported (?:image )?formats:", host.must_run(["qemu-img", "--help"]))[-1].split()
    with tempfile.TemporaryDirectory(prefix="anfitrion-formats-") as top:
        source = os.path.join(top, "source.raw")
        with open(source, "wb") as file:
            file.write(b"anfitrion" * 4096)
            file.truncate(1 << 20)
        return [_tried(host, top, source, kind) for kind in TRIED if kind in listed]


def _tried(host: Root, top: str, source: str, kind: str) -> dict[str, Any]:
    image, back = os.path.join(top, f"image.{kind}"), os.path.join(top, f"back.{kind}")
    created = host.run(["qemu-img", "create", "-q", "-f", kind, image, "1M"]).rc == 0
    converted = host.run(["qemu-img", "convert", "-f", "raw", "-O", kind, source, back]).rc == 0
    same = converted and host.run(["qemu-img", "compare", "-f", "raw", "-F", kind, source, back]).rc == 0
    return {
        "format": kind,
        "create": created,
        "convert": converted,
        # What QEMU cannot write it can still read; there is no image of that kind to try it on here.
        "read": same if converted else (None if kind in READ_ONLY else False),
        "grow": created and host.run(["qemu-img", "resize", "-q", "-f", kind, image, "2M"]).rc == 0,
        "shrink": created and host.run(["qemu-img", "resize", "-q", "-f", kind, "--shrink", image, "1M"]).rc == 0,
    }
