"""Print kvm when KVM starts an ordinary kernel on this machine, else tcg: probe_accelerator.py --image DIRECTORY

/dev/kvm can exist and still not run a kernel (some clouds and sandboxes), so the tiny guest of the image is started with it.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import time

SIGN = b"anfitrion-guest-ready"
DEADLINE_SECONDS = 30


def kvm_starts(image: str) -> bool:
    """Tell whether the tiny guest comes up under KVM within DEADLINE_SECONDS."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    guest = os.path.join(image, "guest")
    with open(os.path.join(guest, "cmdline"), encoding="ascii") as file:
        cmdline = file.read().strip()
    command = [
        "qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "256", "-nodefaults", "-no-user-config",
        "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", os.path.join(guest, "vmlinuz"),
        "-initrd", os.path.join(guest, "initrd"), "-append", cmdline,
    ]  # fmt: skip
    try:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as qemu:
            try:
                return says(qemu, SIGN)
            finally:
                qemu.kill()
    except FileNotFoundError:
        return False


def says(process: subprocess.Popen[bytes], sign: bytes) -> bool:
    """Tell whether a process prints a sign before it ends or DEADLINE_SECONDS are over."""
    output, deadline = b"", time.monotonic() + DEADLINE_SECONDS
    if process.stdout is None:
        return False
    while sign not in output:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            return False
        chunk = os.read(process.stdout.fileno(), 4096)
        if not chunk:
            return False
        output += chunk
    return True


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", required=True, help="directory of a lab image")
    print("kvm" if kvm_starts(parser.parse_args().image) else "tcg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
