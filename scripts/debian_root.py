"""The root file system of another Debian release, to run ring 3 on its libvirt: debian_root.py --release 13 prints its directory.

Made with mmdebstrap from the mirror that the machine's apt uses, and kept in the cache directory, outside of every checkout. The key
is a hash of this program and of the packages that a lab's host has: whatever a root is made from is written there. A root that
exists is returned at once; one that is being made elsewhere is waited for. No service in it is started, nothing in it is changed.
scripts/private-libvirtd start --root takes it. Python 3.9, standard library, mmdebstrap; root.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "roles" / "lab" / "files"))
from lab_image import CODENAMES, EXCLUDED_PATHS, HOST_PACKAGES, HOST_PACKAGES_OF_RELEASE, BuildError, debian_mirror, run

# What the tests need besides a host: storage of more kinds, a target for iSCSI, and what a controller's Python is linked with.
MORE_PACKAGES = (
    "python3", "procps", "iproute2", "e2fsprogs", "parted", "scrub", "tgt", "libvirt-daemon-driver-storage-iscsi-direct", "netbase",
    "openvswitch-switch", "libssl3t64", "libffi8", "libsqlite3-0", "libreadline8t64", "libncursesw6", "libbz2-1.0", "liblzma5",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the root file system of a Debian release; print its directory.")
    parser.add_argument("--release", choices=sorted(release for release, packages in HOST_PACKAGES_OF_RELEASE.items() if packages), required=True)
    given = parser.parse_args()
    try:
        print(ensure_made(given.release))
    except BuildError as error:
        print(f"debian_root: {error}", file=sys.stderr)
        return 1
    return 0


def packages_of(release: str) -> list[str]:
    """Return what a lab's host has; what it starts with is not needed here."""
    never = ("grub2-common", "grub-pc-bin")
    return sorted({*HOST_PACKAGES, *HOST_PACKAGES_OF_RELEASE[release], *MORE_PACKAGES} - {*never})


def ensure_made(release: str) -> Path:
    """Return the directory of a root, made if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "anfitrion.kvm" / "roots"
    made_from = Path(__file__).read_bytes() + "\n".join(packages_of(release)).encode()
    directory = cache / f"debian{release}-{hashlib.sha256(made_from).hexdigest()[:12]}"
    if directory.exists():
        return directory
    if os.geteuid() != 0:
        raise BuildError("making a root file system needs root: it makes files of other owners and enters the new root")
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f".{directory.name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            work = cache / f".{directory.name}.new"
            # Only an interrupted run can have left this: the lock is ours.
            shutil.rmtree(work, ignore_errors=True)
            try:
                make(release, work)
                work.rename(directory)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return directory


def make(release: str, root: Path) -> None:
    run([
        "mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase", "--architectures=amd64",
        "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg",
        *[f"--dpkgopt=path-exclude={path}" for path in EXCLUDED_PATHS], "--dpkgopt=force-unsafe-io",
        '--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"',
        f"--include={','.join(packages_of(release))}", CODENAMES[release], str(root), debian_mirror(),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
