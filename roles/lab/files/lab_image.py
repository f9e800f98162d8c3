"""Build the raw material of lab hosts from Debian packages: disks, kernel, initramfs, package repository, tiny guest.

    lab_image.py --release 13 --cache /var/cache/anfitrion-lab

prints the directory DIR/<key>/ that holds, for one Debian release:

    host.raw         a KVM host: libvirt, QEMU and their tools installed, nothing configured
    bare.raw         the same Debian without any of them, ready for Ansible
    vmlinuz          the distribution's kernel, for direct kernel boot
    initrd           finds the root disk, writes the host's identity into it, starts systemd
    cmdline          the kernel arguments that such a host needs
    guest/           the tiny guest: vmlinuz, initrd, cmdline; in both disks as /srv/anfitrion-guest
    ssh_host_key.pub the key by which every host made from this image is known
    image.json       what was built from what, sizes and times

Both disks carry /srv/anfitrion-repo, a package repository with everything that makes a host out of the bare machine,
and apt there knows no other, so that lab hosts need no route out.

A host gets its identity when it starts, from QEMU's firmware configuration (-fw_cfg, libvirt's <sysinfo type='fwcfg'>):

    opt/anfitrion/hostname         one word
    opt/anfitrion/authorized_keys  root's ssh keys, one a line
    opt/anfitrion/network          per NIC one line "MAC NAME ADDRESS/PREFIX" ("-" for no address)
    opt/anfitrion/hosts            lines for /etc/hosts

The key is a hash of this program and the release: whatever an image is made from is written here. An image that exists
is returned at once; one that is being built elsewhere is waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import lzma
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

CODENAMES = {"12": "bookworm", "13": "trixie"}

# What an administrator's fresh machine has, and Ansible needs.
BARE_PACKAGES = (
    "linux-image-amd64", "systemd-sysv", "udev", "dbus", "kmod", "procps", "iproute2", "iputils-ping", "netbase",
    "openssh-server", "python3", "python3-apt", "e2fsprogs", "less",
)
# What makes a KVM host out of it.
HOST_PACKAGES = (
    "libvirt-daemon-system", "libvirt-clients", "libvirt-daemon-driver-qemu", "python3-libvirt", "python3-lxml",
    "qemu-system-x86", "qemu-utils", "dnsmasq-base", "iptables", "nftables", "lvm2", "pciutils", "ethtool", "curl",
    "netcat-openbsd", "tcpdump", "numactl", "bridge-utils", "socat",
    "grub2-common", "grub-pc-bin",  # the host starts without it; its configuration is what tests of the command line read
)
# libvirt 11 is packaged in more pieces than libvirt 9.
HOST_PACKAGES_OF_RELEASE = {
    "12": (),
    "13": ("libvirt-daemon-driver-interface", "libvirt-daemon-driver-storage-disk", "libvirt-daemon-driver-storage-iscsi",
           "libvirt-daemon-driver-storage-logical", "libvirt-daemon-driver-storage-scsi", "libvirt-daemon-lock",
           "libvirt-daemon-plugin-lockd"),
}
# In the repository only: the guest is made from these.
GUEST_PACKAGES = ("busybox", "qemu-guest-agent")
# In the repository only: the kinds of storage pool that not every host has, and servers to try them against.
STORAGE_PACKAGES = (
    "parted", "nfs-common", "open-iscsi", "libvirt-daemon-driver-storage-iscsi-direct", "nfs-kernel-server", "targetcli-fb",
)
# In the repository only: what else writes the host's knobs, for tests that install it.
RIVAL_PACKAGES = ("ksmtuned", "tuned")

EXCLUDED_PATHS = (
    "/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*",
    "/usr/share/bash-completion/*", "/usr/share/perl/*/unicore/*", "/usr/share/gdb/*",
)
# Hardware that no lab host has. Most of the kernel package's 500 MB are these.
EXCLUDED_MODULES = (
    "drivers/gpu", "drivers/media", "drivers/staging", "drivers/infiniband", "drivers/isdn", "drivers/bluetooth",
    "drivers/net/wireless", "drivers/net/usb", "drivers/net/can", "drivers/net/phy", "drivers/usb/serial",
    "drivers/usb/gadget", "drivers/hid", "drivers/iio", "drivers/comedi", "drivers/hwmon", "drivers/mtd",
    "drivers/video", "drivers/mmc", "drivers/platform", "drivers/leds", "drivers/rtc", "drivers/firewire",
    "drivers/thunderbolt", "drivers/accel", "drivers/soundwire", "drivers/crypto", "drivers/edac", "drivers/mfd",
    "drivers/regulator", "drivers/power", "drivers/xen", "drivers/memstick", "drivers/gnss", "drivers/wwan",
    "drivers/input/touchscreen", "drivers/input/joystick", "drivers/input/tablet", "drivers/ata", "drivers/nfc",
    "drivers/net/ethernet", "drivers/net/hamradio", "drivers/net/ieee802154", "sound", "net/wireless", "net/mac80211",
    "net/bluetooth", "net/batman-adv", "net/rds", "net/tipc", "net/smc", "net/ax25", "net/nfc", "net/can",
)
# kvm_amd needs ccp, with SEV hardware or without.
INCLUDED_MODULES = ("drivers/crypto/ccp", "drivers/net/ethernet/intel", "drivers/net/ethernet/mellanox/mlx4")

MASKED_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "logrotate.timer", "systemd-tmpfiles-clean.timer", "getty@tty1.service", "serial-getty@ttyS0.service",
    "systemd-networkd-wait-online.service", "systemd-network-generator.service", "systemd-timesyncd.service",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-random-seed.service",
    "systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-journal-flush.service",
    "systemd-firstboot.service", "systemd-pcrphase.service", "systemd-pcrphase-sysinit.service",
    "systemd-pcrmachine.service", "systemd-tpm2-setup.service", "systemd-tpm2-setup-early.service",
    "systemd-pstore.service", "grub-common.service", "systemd-ask-password-wall.path",
    "systemd-ask-password-console.path", "systemd-user-sessions.service", "ldconfig.service", "sshd-keygen.service",
)

LATE_UNITS = (
    "libvirtd.service", "virtlogd.service", "virtlockd.service", "systemd-machined.service", "systemd-logind.service",
    "libvirt-guests.service",
)

# ext4 asks for its checksum by an alias, which only a real modprobe resolves.
HOST_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "qemu_fw_cfg")
GUEST_MODULES = (
    "virtio_pci", "virtio_blk", "virtio_net", "virtio_balloon", "virtio_console", "virtio_rng", "igbvf", "button", "evdev",
)
# In the guest, loaded when its kernel command line says anfitrion.extra: file systems, SCSI with CD-ROM, memory that grows,
# and what devices of its host need.
GUEST_EXTRA_MODULES = (
    "virtio_mem", "virtio_scsi", "sd_mod", "sr_mod", "isofs", "crc32c_generic", "ext4",
    "igb", "nvme", "uhci_hcd", "ehci_pci", "xhci_pci", "usb_storage",
)

# tsc, no_timer_check: calibrating clocks takes seconds under emulation. no5lvl: a page walk less.
HOST_CMDLINE = (
    "root=/dev/vda rw console=ttyS0 loglevel=4 intel_iommu=on iommu=pt mitigations=off no5lvl tsc=reliable "
    "no_timer_check nokaslr cryptomgr.notests random.trust_cpu=on audit=0 edd=off panic=10"
)
GUEST_CMDLINE = (
    "console=ttyS0 quiet mitigations=off no5lvl tsc=reliable no_timer_check nokaslr cryptomgr.notests "
    "random.trust_cpu=on audit=0 edd=off 8250.nr_uarts=1 panic=-1"
)

HOST_INIT = r"""#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t tmpfs -o mode=755 tmpfs /run
for module in $(busybox cat /modules/order); do busybox insmod /modules/$module; done

root=/dev/vda
for word in $(busybox cat /proc/cmdline); do
    case $word in root=*) root=${word#root=} ;; esac
done
tries=0
until busybox mount -t ext4 -o rw,noatime $root /root; do
    tries=$((tries + 1))
    if [ $tries -ge 50 ]; then
        echo "anfitrion-lab: no root file system on $root"
        busybox poweroff -f
    fi
    busybox usleep 200000
done

# The identity is written before systemd starts, so that nothing has to wait for it or be told again.
given=/sys/firmware/qemu_fw_cfg/by_name/opt/anfitrion
if [ -e $given/hostname/raw ]; then
    name=$(busybox cat $given/hostname/raw)
    echo "$name" > /root/etc/hostname
    { echo "127.0.0.1 localhost"; echo "127.0.1.1 $name"; busybox cat $given/hosts/raw 2>/dev/null; echo; } > /root/etc/hosts
fi
if [ -e $given/authorized_keys/raw ]; then
    busybox mkdir -p -m 700 /root/root/.ssh
    { busybox cat $given/authorized_keys/raw; echo; } > /root/root/.ssh/authorized_keys
    busybox chmod 600 /root/root/.ssh/authorized_keys
fi
if [ -e $given/network/raw ]; then
    units=/run/systemd/network
    busybox mkdir -p -m 755 /run/systemd $units
    { busybox cat $given/network/raw; echo; } | while read -r mac name address; do
        [ -n "$mac" ] || continue
        printf '[Match]\nPermanentMACAddress=%s\nPath=pci-*\n[Link]\nName=%s\n' $mac $name > $units/10-$name.link
        [ "${address:--}" != - ] || continue
        # In /run and late in the order: a role that wants the NIC for a bridge simply writes its own file.
        printf '[Match]\nName=%s\n[Network]\nAddress=%s\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' \
            $name $address > $units/90-$name.network
    done
fi

busybox umount /sys
busybox umount /proc
busybox mount -o move /dev /root/dev
busybox mount -o move /run /root/run
exec busybox switch_root /root /sbin/init
"""

GUEST_INIT = r"""#!/bin/sh
# anfitrion.<option>=<value> on the kernel command line: name=HOSTNAME, fill=MIB, wait=SECONDS for an address,
# address=NIC,ADDRESS/PREFIX (more than once) for a NIC that DHCP does not serve, extra for the extra kernel modules and
# a line for each device that comes or goes.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do insmod /modules/$module; done

name=guest fill=0 wait=20 static= extra=
for word in $(cat /proc/cmdline); do
    case $word in
        anfitrion.name=*) name=${word#*=} ;;
        anfitrion.fill=*) fill=${word#*=} ;;
        anfitrion.wait=*) wait=${word#*=} ;;
        anfitrion.address=*) static="$static ${word#*=}" ;;
        anfitrion.extra) extra=yes; for module in $(cat /modules/extra); do insmod /modules/$module; done ;;
    esac
done
hostname "$name"
say() { echo "anfitrion-guest-$*" > /dev/console; }

# PCI devices with a driver, USB devices, disks that are not virtio: for a guest that is given devices of its host.
watch_devices() {
    seen=
    while :; do
        for one in /sys/bus/pci/devices/*/driver /sys/bus/usb/devices/*/idVendor /sys/block/nvme*/size /sys/block/sd*/size; do
            [ -e "$one" ] || continue # a pattern that nothing fitted, though it may by now
            case " $seen " in *" $one "*) continue ;; esac
            seen="$seen $one"
            at=${one%/*}
            case $one in
                */driver) driver=$(readlink $one); say "device pci id=$(cat $at/vendor):$(cat $at/device) driver=${driver##*/}" ;;
                */idVendor) say "device usb id=$(cat $one):$(cat $at/idProduct) serial=$(cat $at/serial 2>/dev/null)" ;;
                *)  mark=$(dd if=/dev/${at##*/} bs=64 count=1 2>/dev/null | tr -d '\0')
                    say "device disk ${at##*/} sectors=$(cat $one) serial=$(cat $at/device/serial 2>/dev/null) mark=$mark" ;;
            esac
        done
        still=
        for one in $seen; do
            if [ -e $one ]; then still="$still $one"; else say "device gone ${one%/*}"; fi
        done
        seen=$still
        sleep 2
    done
}
[ -z "$extra" ] || watch_devices &

ip link set lo up
nics=
for nic in /sys/class/net/*; do
    nic=${nic##*/}
    [ -e /sys/class/net/$nic/device ] || continue
    nics="$nics $nic"
    ip link set $nic up
done
for one in $static; do ip address add ${one#*,} dev ${one%,*} && say "address nic=${one%,*} ip=${one#*,}"; done
for nic in $nics; do
    case $static in *" $nic,"*) continue ;; esac
    driver=$(readlink /sys/class/net/$nic/device/driver)
    case ${driver##*/} in
        virtio_net) udhcpc -i $nic -s /bin/dhcp-event -x hostname:$name -t 40 -T 1 -n > /dev/null 2>&1 & ;;
        # Most often nobody answers on a VF.
        *) udhcpc -i $nic -s /bin/dhcp-event -x hostname:$name -t 5 -T 3 -n -q > /dev/null 2>&1 & ;;
    esac
done

# What is on a disk is only ever replaced if it is nothing or our own.
for disk in /sys/block/vd*; do
    [ -e $disk ] || continue
    disk=${disk##*/}
    before=$(dd if=/dev/$disk bs=512 count=1 2>/dev/null | tr -d '\0')
    case $before in
        ''|anfitrion-guest\ *)
            boot=${before##*boot=}
            mark="anfitrion-guest name=$name boot=$((${boot:-0} + 1))"
            printf '%s' "$mark" | dd of=/dev/$disk bs=512 count=1 conv=sync,fsync 2>/dev/null
            now=$(dd if=/dev/$disk bs=512 count=1 iflag=direct 2>/dev/null | tr -d '\0')
            if [ "$now" = "$mark" ]; then result=written; else result=failed; fi
            say "disk $disk sectors=$(cat /sys/block/$disk/size) $result boot=$((${boot:-0} + 1))" ;;
        *) say "disk $disk sectors=$(cat /sys/block/$disk/size) foreign" ;;
    esac
done

nc -ll -p 7777 -e /bin/answer &
for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name 2>/dev/null)" = org.qemu.guest_agent.0 ] || continue
    qemu-ga -m virtio-serial -p /dev/${port##*/} -t /run -l /run/qemu-ga.log &
done
for input in /sys/class/input/event*; do
    [ "$(cat $input/device/name 2>/dev/null)" = "Power Button" ] || continue
    ( dd if=/dev/input/${input##*/} bs=24 count=1 > /dev/null 2>&1; say "powering off"; poweroff -f ) &
done

if [ $fill -gt 0 ]; then
    # Pages that differ from each other and are the same in every guest.
    seq 1 200000 | head -c 1048576 > /run/pattern
    tries=0
    while [ $tries -lt $fill ]; do cat /run/pattern; tries=$((tries + 1)); done > /run/fill
    say "filled $(($(stat -c %s /run/fill) / 1048576)) MiB"
fi

tries=0
while [ ! -s /run/address ] && [ $tries -lt $((wait * 5)) ]; do usleep 200000; tries=$((tries + 1)); done
macs= drivers=
for nic in $nics; do
    driver=$(readlink /sys/class/net/$nic/device/driver)
    macs="$macs,$nic=$(cat /sys/class/net/$nic/address)"
    drivers="$drivers,$nic=${driver##*/}"
done
say "ready hostname=$name ip=$(cat /run/address 2>/dev/null || echo none) macs=${macs#,} drivers=${drivers#,} uptime=$(cut -d' ' -f1 /proc/uptime)"
while :; do sleep 3600; done
"""

GUEST_DHCP_EVENT = r"""#!/bin/sh
# The first address of a virtio NIC is the guest's address.
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip address replace $ip/${mask:-24} dev $interface
[ -z "$router" ] || ip route replace default via ${router%% *} dev $interface
[ "$1" = bound ] || exit 0
echo "anfitrion-guest-address nic=$interface ip=$ip" > /dev/console
driver=$(readlink /sys/class/net/$interface/device/driver)
[ ${driver##*/} != virtio_net ] || [ -s /run/address ] || echo $ip > /run/address
"""

GUEST_ANSWER = r"""#!/bin/sh
echo "anfitrion-guest hostname=$(hostname) ip=$(cat /run/address 2>/dev/null || echo none)"
"""

# qemu-ga runs these when it is asked to shut the guest down.
GUEST_SHUTDOWN = r"""#!/bin/sh
sync
case $1 in -r) reboot -f ;; *) poweroff -f ;; esac
"""


class BuildError(Exception):
    """The image cannot be built; the message says why and what to do."""


class Entry(NamedTuple):
    """One file of an initramfs: mode with file type, and content (a link's target)."""

    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Say how long something took."""
    started = time.monotonic()
    yield
    print(f"lab_image: {title}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


def run(command: Sequence[str | Path], **options: str | Path | dict[str, str]) -> str:
    """Run a command and return its standard output; a failure shows the end of what it said."""
    done = subprocess.run([str(word) for word in command], capture_output=True,
                          stdin=subprocess.DEVNULL, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise BuildError(f"{' '.join(str(word) for word in command)[:300]} ended with {done.returncode}:\n{tail}")
    return str(done.stdout)


# --- Debian root file systems -------------------------------------------------------------------------------------


def debian_mirror() -> str:
    """The mirror this machine's apt uses, else Debian's own."""
    for source in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if source.exists():
            found = re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?) *(\S+/debian)/?(?:\s|$)", source.read_text(), re.MULTILINE)
            if found:
                return found.group(1)
    return "http://deb.debian.org/debian"


def module_filters() -> list[str]:
    """dpkg's path filters for the kernel's modules; the last that matches wins."""
    excluded = [f"path-exclude=*/lib/modules/*/kernel/{path}/*" for path in EXCLUDED_MODULES]
    return excluded + [f"path-include=*/lib/modules/*/kernel/{path}/*" for path in INCLUDED_MODULES]


def bootstrap(release: str, root: Path) -> None:
    """Make the bare machine's root file system, with apt's lists still in place."""
    filters = [f"path-exclude={path}" for path in EXCLUDED_PATHS] + module_filters()
    run([
        "mmdebstrap", "--mode=root", "--format=directory", "--variant=apt", "--architectures=amd64",
        "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg", "--skip=cleanup/apt,cleanup/reproducible",
        *[f"--dpkgopt={line}" for line in (*filters, "force-unsafe-io")],
        '--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"',
        "--setup-hook=mkdir -p \"$1/etc/initramfs-tools\"",
        f"--include={','.join(BARE_PACKAGES)}", CODENAMES[release], str(root), debian_mirror(),
    ], env={**os.environ, "INITRD": "No"})


def apt_outside(root: Path) -> list[str]:
    """This machine's apt-get working on another root's packages: network and proxy settings stay this machine's."""
    return ["apt-get", "-q", "-y", "-o", f"Dir={root}", "-o", f"Dir::State::status={root}/var/lib/dpkg/status",
            "-o", "APT::Architecture=amd64", "-o", "APT::Architectures=amd64", "-o", "APT::Sandbox::User=root",
            "-o", "APT::Install-Recommends=false", "-o", "Acquire::Languages=none"]


def download_repository(release: str, root: Path, repository: Path) -> None:
    """Fetch all that makes a host out of the bare root, with dependencies, and index it."""
    (repository / "partial").mkdir(parents=True)
    wanted = HOST_PACKAGES + HOST_PACKAGES_OF_RELEASE[release] + GUEST_PACKAGES + STORAGE_PACKAGES + RIVAL_PACKAGES
    run([*apt_outside(root), "-o", f"Dir::Cache::archives={repository}/", "--download-only", "install", *wanted])
    shutil.rmtree(repository / "partial")
    for leftover in repository.glob("lock"):
        leftover.unlink()
    index = run(["apt-ftparchive", "packages", "."], cwd=repository)
    (repository / "Packages").write_text(index)
    (repository / "Release").write_text(run(["apt-ftparchive", "release", "."], cwd=repository))


def use_only_repository(root: Path, repository: Path) -> None:
    """Put the repository into a root file system, as apt's only source."""
    shutil.copytree(repository, root / "srv/anfitrion-repo")
    etc_apt = root / "etc/apt"
    for source in (etc_apt / "sources.list.d").iterdir():
        source.unlink()
    (etc_apt / "sources.list").write_text("deb [trusted=yes] file:/srv/anfitrion-repo ./\n")
    for stale in (root / "var/lib/apt/lists").iterdir():
        if stale.is_file():
            stale.unlink()
    run_inside(root, "apt-get -q update && apt-cache gencaches")


def run_inside(root: Path, script: str) -> None:
    """Run a shell script in a root file system; what is mounted for it goes away with its mount namespace."""
    prepare = 'mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/tmp" && mount --rbind /dev "$1/dev" && exec chroot "$1" sh -ec "$2"'
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8",
                   "INITRD": "No", "HOME": "/root"}
    run(["unshare", "--mount", "--propagation", "slave", "--fork", "sh", "-c", prepare, "sh", root, script], env=environment)


def install_host(release: str, root: Path) -> None:
    """Install the host's packages out of the image's own repository, which proves that it is complete."""
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    run_inside(root, "apt-get -q -y install " + " ".join(HOST_PACKAGES + HOST_PACKAGES_OF_RELEASE[release]) + "; apt-get clean")
    policy.unlink()
    # Whether a network is started is the roles' to say.
    for link in (root / "etc/libvirt/qemu/networks/autostart").glob("*.xml"):
        link.unlink()


def configure(root: Path) -> None:
    """Make a root file system start quickly, and let root in by ssh key only."""
    units = root / "etc/systemd/system"
    for unit in MASKED_UNITS:
        link = units / unit
        if link.is_symlink() or link.exists():
            link.unlink()
        link.symlink_to("/dev/null")
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    for unit in ("systemd-networkd.service", "ssh.service"):
        if not (wanted / unit).is_symlink():
            (wanted / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").write_text("lab\n")
    (root / "etc/fstab").write_text("")
    write(root / "etc/systemd/journald.conf.d/lab.conf", "[Journal]\nStorage=volatile\nForwardToConsole=no\n")
    write(root / "etc/systemd/system.conf.d/lab.conf", "[Manager]\nDefaultTimeoutStartSec=300s\nDefaultTimeoutStopSec=30s\n")
    # What ssh does not need is not allowed to delay it.
    for unit in LATE_UNITS:
        write(units / f"{unit}.d/lab.conf", "[Unit]\nAfter=ssh.service\n")
    # PAM and slow key exchanges cost seconds of every login under emulation.
    write(root / "etc/ssh/sshd_config.d/lab.conf",
          "UsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nHostKey /etc/ssh/ssh_host_ed25519_key\n"
          "KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org\nUseDNS no\nMaxStartups 50\nMaxSessions 50\n")
    run_inside(root, "usermod -p '*' root")
    for conf in (root / "etc/resolv.conf", root / "etc/apt/apt.conf.d/99mmdebstrap"):
        if conf.exists():
            conf.unlink()
    write(root / "etc/apt/apt.conf.d/lab.conf", 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n')
    # systemd looks for these stamps to decide whether databases have to be rebuilt at boot.
    for stamp in ("etc/.updated", "var/.updated"):
        (root / stamp).touch()


def write(path: Path, text: str) -> None:
    """Write a file, making its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_disk(root: Path, image: Path, size: str = "8G") -> None:
    """Turn a root file system into a sparse ext4 disk without mounting anything."""
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "anfitrion-lab", "-N", "200000", "-m", "0", "-E", "lazy_itable_init=0",
         "-d", root, image, size])


# --- Kernel modules and initramfs ---------------------------------------------------------------------------------


def kernel_release(root: Path) -> str:
    """The version of the only kernel in a root file system."""
    found = sorted(path.name for path in (root / "usr/lib/modules").iterdir())
    if len(found) != 1:
        raise BuildError(f"expected one kernel in the image, found {', '.join(found) or 'none'}")
    return found[0]


def unpack_modules(root: Path) -> None:
    """Unpack compressed modules: lab hosts load many and unpacking is slow under emulation."""
    modules = root / "usr/lib/modules" / kernel_release(root)
    for path in modules.rglob("*.ko.xz"):
        path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        path.unlink()
    run_inside(root, f"depmod {modules.name}")


def module_name(path: str) -> str:
    """Name of a kernel module, as modprobe(8) says it."""
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def module_needs(modules: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Path of each kernel module, and the modules that each needs before it, softly or not."""
    needs: dict[str, list[str]] = {}
    paths: dict[str, str] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _colon, rest = line.partition(":")
        paths[module_name(path)] = path
        needs[module_name(path)] = [module_name(other) for other in rest.split()]
    for line in (modules / "modules.softdep").read_text().splitlines():
        words = line.split()
        if words[:1] == ["softdep"] and words[2:3] == ["pre:"]:
            before = [word.replace("-", "_") for word in words[3:]]
            needs.setdefault(words[1].replace("-", "_"), []).extend(word for word in before if word in paths)
    return paths, needs


def module_order(modules: Path, wanted: Iterable[str]) -> list[Path]:
    """Paths of the wanted modules and all they need, each after what it needs; those built into the kernel left out."""
    paths, needs = module_needs(modules)
    built_in = {module_name(line) for line in (modules / "modules.builtin").read_text().splitlines()}
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order or (name in built_in and name not in paths):
            return
        if name not in paths:
            raise BuildError(f"the kernel has no module {name}")
        for other in needs[name]:
            visit(other)
        if name not in order:
            order.append(name)

    for name in wanted:
        visit(name)
    return [modules / paths[name] for name in order]


def module_entries(root: Path, wanted: Sequence[str], extra: Sequence[str] = ()) -> dict[str, Entry]:
    """Initramfs entries of kernel modules and of the order to load them in; the extra ones have an order of their own."""
    modules = root / "usr/lib/modules" / kernel_release(root)
    order, every = module_order(modules, wanted), module_order(modules, [*wanted, *extra])
    entries = {f"modules/{path.name}": Entry(stat.S_IFREG | 0o644, path.read_bytes()) for path in every}
    for name, paths in (("order", order), ("extra", every[len(order):])):
        entries[f"modules/{name}"] = Entry(stat.S_IFREG | 0o644, "".join(f"{path.name}\n" for path in paths).encode())
    return entries


def program_entries(root: Path, programs: dict[str, str]) -> dict[str, Entry]:
    """Initramfs entries of programs of a root file system (name in the initramfs -> path) and their libraries."""
    entries: dict[str, Entry] = {}
    for name, path in programs.items():
        entries[name] = Entry(stat.S_IFREG | 0o755, (root / path).read_bytes())
        listed = run(["chroot", root, "/usr/bin/env", "LD_TRACE_LOADED_OBJECTS=1", f"/{path}"])
        for library in re.findall(r"(/\S+) \(0x", listed):
            real = Path(run(["chroot", root, "/usr/bin/realpath", library]).strip())
            entries[library.lstrip("/")] = Entry(stat.S_IFREG | 0o755, (root / real.relative_to("/")).read_bytes())
    return entries


def cpio(entries: dict[str, Entry]) -> bytes:
    """An initramfs archive ("newc"); directories are made as needed."""
    complete: dict[str, Entry] = {}
    for path in sorted(entries):
        for parent in reversed(Path(path).parents):
            if str(parent) != ".":
                complete.setdefault(str(parent), Entry(stat.S_IFDIR | 0o755))
        complete[path] = entries[path]
    parts: list[bytes] = []
    for number, (path, entry) in enumerate([*complete.items(), ("TRAILER!!!", Entry(0))], start=1):
        name = path.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        parts.append(header + b"\0" * (-len(header) % 4) + entry.content + b"\0" * (-len(entry.content) % 4))
    return b"".join(parts)


def script(text: str) -> Entry:
    """An executable text file."""
    return Entry(stat.S_IFREG | 0o755, text.encode())


COMMON_ENTRIES = {
    **{name: Entry(stat.S_IFDIR | 0o755) for name in ("proc", "sys", "dev", "run", "root", "tmp", "etc")},
    "dev/console": Entry(stat.S_IFCHR | 0o600, device=(5, 1)),
    "sbin": Entry(stat.S_IFLNK | 0o777, b"bin"),
}


def host_initramfs(root: Path) -> bytes:
    """The initramfs that starts a lab host's systemd."""
    return cpio({**COMMON_ENTRIES, **program_entries(root, {"bin/busybox": "tmp-guest/usr/bin/busybox"}),
                 "bin/sh": Entry(stat.S_IFLNK | 0o777, b"busybox"), **module_entries(root, HOST_MODULES), "init": script(HOST_INIT)})


def guest_initramfs(root: Path) -> bytes:
    """The whole file system of the tiny guest."""
    applets = run(["chroot", root, "/tmp-guest/usr/bin/busybox", "--list"]).split()
    links = {f"bin/{applet}": Entry(stat.S_IFLNK | 0o777, b"busybox") for applet in applets if applet != "busybox"}
    return cpio({
        **COMMON_ENTRIES, **links,
        **program_entries(root, {"bin/busybox": "tmp-guest/usr/bin/busybox", "bin/qemu-ga": "tmp-guest/usr/sbin/qemu-ga"}),
        **module_entries(root, GUEST_MODULES, GUEST_EXTRA_MODULES),
        "init": script(GUEST_INIT), "bin/dhcp-event": script(GUEST_DHCP_EVENT), "bin/answer": script(GUEST_ANSWER),
        "bin/shutdown": script(GUEST_SHUTDOWN),
    })


def make_guest(root: Path, repository: Path, kernel: Path, guest: Path, initrd: Path) -> None:
    """Make the tiny guest and the hosts' initramfs out of the release's own programs."""
    staging = root / "tmp-guest"
    for package in GUEST_PACKAGES:
        for archive in repository.glob(f"{package}_*.deb"):
            run(["dpkg-deb", "--extract", archive, staging])
    if not (staging / "usr/bin/busybox").exists():
        # Debian 12 ships it in /bin.
        (staging / "usr/bin").mkdir(parents=True, exist_ok=True)
        shutil.move(str(staging / "bin/busybox"), str(staging / "usr/bin/busybox"))
    guest.mkdir()
    (guest / "initrd").write_bytes(guest_initramfs(root))
    (guest / "cmdline").write_text(GUEST_CMDLINE + "\n")
    shutil.copy(kernel, guest / "vmlinuz")
    initrd.write_bytes(host_initramfs(root))
    shutil.rmtree(staging)


# --- The whole ----------------------------------------------------------------------------------------------------


def key_of(release: str) -> str:
    """The name of an image: the release and a hash of all that it is made from."""
    program = Path(__file__).read_bytes()
    return f"debian{release}-{hashlib.sha256(program + release.encode()).hexdigest()[:12]}"


def build(release: str, work: Path) -> None:
    """Build everything into an empty directory."""
    started = time.monotonic()
    bare, host, repository, guest = work / "bare-root", work / "host-root", work / "repository", work / "guest"
    with step(f"Debian {release}: bare root file system"):
        bootstrap(release, bare)
        unpack_modules(bare)
    with step(f"Debian {release}: package repository"):
        download_repository(release, bare, repository)
        use_only_repository(bare, repository)
        configure(bare)
    with step(f"Debian {release}: host root file system"):
        run(["cp", "-a", "--reflink=auto", bare, host])
        install_host(release, host)
    with step(f"Debian {release}: initramfs and guest"):
        kernel = bare / "boot" / f"vmlinuz-{kernel_release(bare)}"
        shutil.copy(kernel, work / "vmlinuz")
        make_guest(host, repository, kernel, guest, work / "initrd")
        (work / "cmdline").write_text(HOST_CMDLINE + "\n")
        shutil.copy(bare / "etc/ssh/ssh_host_ed25519_key.pub", work / "ssh_host_key.pub")
    for root in (bare, host):
        shutil.copytree(guest, root / "srv/anfitrion-guest")
    with step(f"Debian {release}: disks"):
        make_disk(bare, work / "bare.raw")
        make_disk(host, work / "host.raw")
    facts = {"release": release, "kernel": kernel_release(bare), "seconds": round(time.monotonic() - started),
             "bytes": {name: (work / name).stat().st_blocks * 512
                       for name in ("bare.raw", "host.raw", "vmlinuz", "initrd", "guest/vmlinuz", "guest/initrd")}}
    facts["bytes"]["repository"] = sum(path.stat().st_size for path in repository.iterdir())
    (work / "image.json").write_text(json.dumps(facts, indent=2) + "\n")
    for scaffold in (bare, host, repository):
        shutil.rmtree(scaffold)


def ensure_built(release: str, cache: Path) -> Path:
    """Return the image's directory, building it if it is not there."""
    directory = cache / key_of(release)
    if directory.exists():
        return directory
    if os.geteuid() != 0:
        raise BuildError("building an image needs root: it makes files of other owners and enters the new root")
    missing = [tool for tool in ("mmdebstrap", "mke2fs", "apt-ftparchive", "unshare") if not shutil.which(tool)]
    if missing:
        raise BuildError(f"not installed: {', '.join(missing)}")
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f".{directory.name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.exists():
            return directory
        work = cache / f".{directory.name}.building"
        # Only an interrupted build can have left this: the lock is ours.
        if work.exists():
            shutil.rmtree(work)
        work.mkdir()
        try:
            build(release, work)
            work.rename(directory)
        finally:
            if work.exists():
                shutil.rmtree(work)
    return directory


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--release", choices=sorted(CODENAMES), required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--path-only", action="store_true", help="print the directory, whether it exists or not")
    arguments = parser.parse_args()
    cache = arguments.cache.absolute()
    if arguments.path_only:
        print(cache / key_of(arguments.release))
        return 0
    # An end by signal must clean up like any other.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(ensure_built(arguments.release, cache))
    except BuildError as error:
        print(f"lab_image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
