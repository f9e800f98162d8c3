"""A host whose network is run by a real ifupdown, systemd-networkd or NetworkManager, in namespaces of its own: network_host.py MANAGER DIR

With -dhcp after MANAGER the outside machine leases the addresses of eth0.
Started by test_bridge.py below unshare(1). It has eth0 with addresses, eth1 and eth2 without, and an outside machine at the other end of eth0.
The root is read-only; what the managers and the module write is in memory. It prints "ready" and the pid of the outside machine, and
then does what it is told, a line each: "restart" stops the manager, takes all away that a reboot takes away, and starts it again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

EMPTY = ("/run", "/etc/network", "/etc/systemd/network", "/etc/systemd/system", "/etc/NetworkManager", "/var/lib")
BUS = """<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_type="method_return"/><allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/>
<allow receive_type="signal"/></policy></busconfig>"""
INTERFACES = """# The host's network.
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback
"""
STATIC = """# The NIC by which the host is reached.
allow-hotplug eth0
iface eth0 inet static
    address 10.5.0.2/24
    gateway 10.5.0.1
    dns-nameservers 10.5.0.9

# And by IPv6.
iface eth0 inet6 static
    address fd05::2/64
"""
NETWORKD = """[Match]
Name=eth0
[Network]
Address=10.5.0.2/24
Address=fd05::2/64
Gateway=10.5.0.1
DNS=10.5.0.9
IPv6AcceptRA=no
"""
PROFILE = """[connection]
id=wired
uuid=11111111-2222-3333-4444-555555555555
type=ethernet
interface-name=eth0

[ipv4]
method=manual
address1=10.5.0.2/24,10.5.0.1
dns=10.5.0.9;

[ipv6]
method=manual
address1=fd05::2/64
"""
# By DHCP and DHCPv6.
LEASED = {
    "networkd": "[Match]\nName=eth0\n[Network]\nDHCP=yes\n",
    "networkmanager": PROFILE.partition("[ipv4]")[0] + "[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n",
}
# Whoever it does not know gets another address than those it does.
LEASES = (
    "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--interface=out0", "--bind-dynamic", "--pid-file=",
    "--dhcp-leasefile=/run/leases", "--dhcp-sequential-ip", "--dhcp-range=10.5.0.2,10.5.0.9,1h", "--dhcp-option=option:router,10.5.0.1",
    "--enable-ra", "--dhcp-range=fd05::2,fd05::9,64,1h", "--dhcp-authoritative", "--no-ping",
)  # fmt: skip
NM_CONF = "[main]\nplugins=keyfile\nauth-polkit=false\ndns=none\nno-auto-default=*\n"
SERVER = """
import socket
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("", 2222)); s.listen()
while True: s.accept()[0].close()
"""


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)  # what is on our standard output is an answer


def write(path: str, text: str, mode: int = 0o644) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    os.chmod(path, mode)


def own_root(writable: str) -> None:
    """Leave nothing of the machine to be written to but WRITABLE."""
    run("mount", "--make-rprivate", "/")
    run("mount", "--bind", writable, writable)
    run("mount", "-t", "tmpfs", "tmpfs", "/mnt")
    os.makedirs("/mnt/changed")
    os.makedirs("/mnt/work")
    run("mount", "-t", "overlay", "overlay", "-o", "lowerdir=/etc,upperdir=/mnt/changed,workdir=/mnt/work", "/etc")
    for place in EMPTY:
        os.makedirs(place, exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", place)
    run("mount", "-o", "remount,bind,ro", "/")
    # Then networkd and NetworkManager wait for no udev.
    run("mount", "-t", "sysfs", "-o", "ro", "sysfs", "/sys")
    for place in ("/run/dbus", "/run/network", "/run/systemd/netif", "/run/systemd/network", "/var/lib/NetworkManager", "/var/lib/dhcp"):
        os.makedirs(place, exist_ok=True)
    shutil.chown("/run/systemd/netif", "systemd-network", "systemd-network")


def wires(leases: bool) -> int:
    """Make the NICs, and at the end of eth0 the outside machine; return its pid."""
    outside = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    while os.readlink(f"/proc/{outside.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    run("ip", "link", "set", "lo", "up")
    for number in range(3):
        run("ip", "link", "add", f"eth{number}", "type", "veth", "peer", "name", f"out{number}", "netns", str(outside.pid))
        run("nsenter", "-t", str(outside.pid), "-n", "ip", "link", "set", f"out{number}", "up")
    run("nsenter", "-t", str(outside.pid), "-n", "ip", "address", "add", "10.5.0.1/24", "dev", "out0")
    if leases:
        run("nsenter", "-t", str(outside.pid), "-n", "ip", "address", "add", "fd05::1/64", "dev", "out0", "nodad")
        with open("/run/dnsmasq.log", "wb") as log:
            subprocess.Popen(["nsenter", "-t", str(outside.pid), "-n", *LEASES], stdout=log, stderr=log)
    return outside.pid


class Manager:
    """What runs the network."""

    def __init__(self, name: str, leased: bool) -> None:
        self.name, self.leased = name, leased
        self.daemon: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        if self.name == "ifupdown":
            write("/etc/network/interfaces", INTERFACES)
            write("/etc/network/interfaces.d/eth0", STATIC)
            for hooks in ("if-up.d", "if-down.d", "if-pre-up.d", "if-post-down.d"):
                os.makedirs(f"/etc/network/{hooks}", exist_ok=True)
        elif self.name == "networkd":
            write("/run/systemd/network/10-netplan-eth0.network", LEASED[self.name] if self.leased else NETWORKD)
        else:
            write("/etc/NetworkManager/NetworkManager.conf", NM_CONF)
            write("/etc/NetworkManager/system-connections/wired.nmconnection", LEASED[self.name] if self.leased else PROFILE, 0o600)
        if self.leased:
            write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")  # by which a DHCP server knows the host
        if self.name != "ifupdown":
            write("/run/dbus.conf", BUS)
            run("dbus-daemon", "--config-file=/run/dbus.conf", "--fork", "--nopidfile")

    def start(self) -> None:
        if self.name == "ifupdown":
            run("ifup", "-a")
            run("ifup", "--allow=hotplug", "eth0")  # as udev does
            return
        command = ["/lib/systemd/systemd-networkd"] if self.name == "networkd" else ["NetworkManager", "--no-daemon"]
        with open("/run/manager.log", "ab") as log:
            self.daemon = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> None:
        """Stop it without its taking anything down, and forget what is in memory."""
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGKILL)
            self.daemon.wait()
        for place in ("/run/network", "/run/NetworkManager", "/run/systemd/netif"):
            shutil.rmtree(place, ignore_errors=True)
        os.makedirs("/run/network", exist_ok=True)
        os.makedirs("/run/systemd/netif", exist_ok=True)
        shutil.chown("/run/systemd/netif", "systemd-network", "systemd-network")

    def restart(self) -> None:
        self.stop()
        for link in sorted(os.listdir("/sys/class/net"), key=lambda one: one.startswith("eth")):
            if link.startswith("eth") and "." not in link:
                run("ip", "link", "set", link, "nomaster")
                run("ip", "address", "flush", "dev", link)
                run("ip", "link", "set", link, "down")
            elif os.path.exists(f"/sys/class/net/{link}/bridge") or os.path.exists(f"/sys/class/net/{link}/bonding") or "." in link:
                run("ip", "link", "delete", link)
        self.start()


def main() -> None:
    name, writable = sys.argv[1:]
    name, _dash, leased = name.partition("-")
    own_root(writable)
    outside = wires(bool(leased))
    manager = Manager(name, bool(leased))
    manager.configure()
    manager.start()
    server = subprocess.Popen([sys.executable, "-c", SERVER])
    print(f"ready {outside}", flush=True)
    for line in sys.stdin:
        getattr(manager, line.strip())()
        print("done", flush=True)
    server.kill()
    subprocess.Popen(["kill", str(outside)]).wait()


if __name__ == "__main__":
    main()
