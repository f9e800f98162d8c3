"""Show on this host how the plain ways of setting KSM, huge pages and nesting fail: naive.py prints a line for each fact that holds.

Ends with 1 when the kernel does otherwise than what our own ways are built on. Everything is put back.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KSM = "/sys/kernel/mm/ksm"
NODE = "/sys/devices/system/node/node{}/hugepages/hugepages-{}kB/nr_hugepages"
TMPFILES = "/run/tmpfiles.d/naive.conf"
MIB = 1 << 20


def read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def write(path: str, value: str) -> str:
    """Write a kernel file; return "" or the name of the error."""
    try:
        handle = os.open(path, os.O_WRONLY)
        try:
            os.write(handle, value.encode())
        finally:
            os.close(handle)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


@contextmanager
def kept(*paths: str) -> Iterator[None]:
    """Put kernel files back at the end, in the given order."""
    before = {path: read(path) for path in paths if os.path.exists(path)}
    try:
        yield
    finally:
        for path, value in before.items():
            write(path, value[value.index("[") + 1 : value.index("]")] if "[" in value else value)


@contextmanager
def shared_pages() -> Iterator[None]:
    """Have KSM share pages: those of ours, or those of guests that it shares already."""
    with mmap.mmap(-1, 16 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_MERGEABLE)
        memory.write(b"x" * 16 * MIB)
        write(f"{KSM}/pages_to_scan", "5000")
        write(f"{KSM}/run", "1")
        wait(lambda: int(read(f"{KSM}/pages_shared")) > 0)
        yield


def wait(ready: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            sys.exit("naive.py: KSM shared no pages")
        time.sleep(0.2)


def ksm() -> Iterator[tuple[str, bool]]:
    yield "run=3 is refused", write(f"{KSM}/run", "3") == "EINVAL"
    across = read(f"{KSM}/merge_across_nodes")
    other = str(1 - int(across))
    with kept(f"{KSM}/pages_to_scan", f"{KSM}/run"), shared_pages():
        yield "merge_across_nodes is busy while pages are shared", write(f"{KSM}/merge_across_nodes", other) == "EBUSY"
        yield "max_page_sharing is busy while pages are shared", write(f"{KSM}/max_page_sharing", "128") == "EBUSY"
        yield "writing the same value is not", write(f"{KSM}/merge_across_nodes", across) == ""
        os.makedirs("/run/tmpfiles.d", exist_ok=True)
        with open(TMPFILES, "w", encoding="ascii") as file:
            file.write(f"w {KSM}/merge_across_nodes - - - - {other}\n")
        done = subprocess.run(["systemd-tmpfiles", "--create", TMPFILES], capture_output=True, check=False)
        os.unlink(TMPFILES)
        yield "tmpfiles.d fails at it with the code that its service takes for success", done.returncode == 73
        write(f"{KSM}/run", "0")
        yield "run=0 keeps what is shared, and it stays busy", write(f"{KSM}/merge_across_nodes", other) == "EBUSY"
        write(f"{KSM}/run", "2")
        yield "run=2 returns when nothing is shared any more", read(f"{KSM}/pages_shared") == "0"
    if os.path.exists(f"{KSM}/advisor_mode"):
        with kept(f"{KSM}/advisor_mode", f"{KSM}/pages_to_scan"):
            write(f"{KSM}/advisor_mode", "scan-time")
            yield "with the advisor pages_to_scan is refused", write(f"{KSM}/pages_to_scan", "77") == "EINVAL"
            yield "the advisor chooses its own rate at once", read(f"{KSM}/pages_to_scan") == read(f"{KSM}/advisor_min_pages_to_scan")


def hugepages() -> Iterator[tuple[str, bool]]:
    files = [NODE.format(node, 2048) for node in (0, 1)]
    with kept(*files):
        yield "an impossible count is taken without an error", write(files[0], "100000") == ""
        yield "and fewer pages are there", int(read(files[0])) < 100000
        for file in files:
            write(file, "64")
        write("/proc/sys/vm/nr_hugepages", "60")
        yield "vm.nr_hugepages spreads a total over the nodes", [read(file) for file in files] == ["30", "30"]
        huge = NODE.format(0, 1048576)
        yield "a page of 1 GiB at run time is taken without an error", write(huge, "2") == ""
        yield "and is not there", int(read(huge)) < 2
        write(huge, "0")
        done = subprocess.run(["virsh", "allocpages", "--pagesize", "2M", "--pagecount", "100000", "--cellno", "0"], capture_output=True, check=False)
        yield "virsh allocpages fails", done.returncode == 1
        yield "and keeps what it got", int(read(files[0])) > 64
        for file, count in zip(files, ("48", "0")):
            write(file, count)
        with mmap.mmap(-1, 80 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000) as memory:  # MAP_HUGETLB
            memory.write(b"x" * 80 * MIB)
            write(files[0], "0")
            yield "pages in use are not given back but become surplus", read(files[0].replace("nr_huge", "surplus_huge")) == "40"
        yield "and go when they are let go of", read(files[0]) == "0"


def nested() -> Iterator[tuple[str, bool]]:
    module = "kvm_amd" if os.path.exists("/sys/module/kvm_amd") else "kvm_intel"
    file = f"/sys/module/{module}/parameters/nested"
    yield "nested cannot be written", os.stat(file).st_mode & 0o222 == 0
    handle = os.open("/dev/kvm", os.O_RDWR)
    guest = fcntl.ioctl(handle, 0xAE01, 0)  # KVM_CREATE_VM
    done = subprocess.run(["modprobe", "-r", module], capture_output=True, check=False)
    yield "a module with one guest cannot be taken out", done.returncode == 1
    os.close(guest)
    os.close(handle)


def iommu() -> Iterator[tuple[str, bool]]:
    done = subprocess.run(["virt-host-validate", "qemu"], capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if "IOMMU" in line]
    there = os.listdir("/sys/class/iommu") and os.listdir("/sys/kernel/iommu_groups")
    yield "virt-host-validate does not see an IOMMU that is there", bool(told and there) and not any("PASS" in line for line in told)


def main() -> int:
    failed = 0
    for part in (ksm, hugepages, nested, iommu):
        for words, holds in part():
            print(f"{'holds' if holds else 'FAILS'}: {words}", flush=True)
            failed += not holds
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
