"""Print what making and removing VFs could leave behind on a host, a line a thing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

FOLDERS = (
    "/sys/bus/pci/devices", "/sys/kernel/iommu_groups", "/sys/class/net", "/etc/anfitrion.d", "/etc/anfitrion.d/sriov",
    "/usr/local/lib/anfitrion", "/etc/udev/rules.d", "/etc/systemd/system", "/etc/systemd/system/multi-user.target.wants",
    "/run/libvirt/hostdevmgr", "/dev/vfio",
)  # fmt: skip


def main() -> None:
    """Command line."""
    subprocess.run(["udevadm", "settle"], check=True)
    for folder in FOLDERS:
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            # Numbers of groups and of udev's drafts are new each time; how many there are is not.
            print(f"{folder} {name}" if "iommu_groups" not in folder else folder)
    for process in ("libvirtd", "systemd-udevd"):
        done = subprocess.run(["pidof", process], capture_output=True, text=True, check=False)
        pid = done.stdout.split()[-1:] or ["0"]
        print(f"{process}: {len(os.listdir(f'/proc/{pid[0]}/fd')) if pid[0] != '0' else 0} files open")
    links = subprocess.run(["ip", "-j", "-d", "link", "show", "dev", "enp2s0"], capture_output=True, text=True, check=True).stdout
    print(f"VFs of enp2s0: {'vfinfo_list' in links} {Path('/sys/class/net/enp2s0/device/sriov_numvfs').read_text(encoding='ascii').strip()}")


if __name__ == "__main__":
    main()
