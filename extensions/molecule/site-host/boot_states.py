"""Random states of a host: boot_states.py make SEED STATES | list | remove

Each state is some networks, pools and guests of its own, with names s<STATE>-…; what they need is there, or will be gone
after a reboot, or never was, as the dice fall. `list` prints what runs as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import time

import libvirt

PLACES = {"good": "/srv/boot-states", "volatile": "/run/boot-states", "emptied": "/tmp/boot-states"}
NETWORK = "<network><name>{name}</name><bridge name='{bridge}'/><ip address='10.{a}.{b}.1' prefix='24'/></network>"
POOL = "<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"
DOMAIN = """<domain type='kvm'><name>{name}</name><memory unit='MiB'>{memory}</memory><vcpu{pins}>1</vcpu>{backing}{numa}
<cputune><period>100000</period><quota>10000</quota></cputune>
<os><type machine='q35'>hvm</type></os><devices><controller type='usb' model='none'/><memballoon model='none'/>{devices}</devices></domain>"""
DISK = "<disk type='file' device='disk'><driver type='raw'/><source file='{path}'/><target dev='vda' bus='virtio'/></disk>"
VOLUME = "<disk type='volume' device='disk'><driver type='raw'/><source pool='{pool}' volume='{volume}'/><target dev='vda' bus='virtio'/></disk>"
NIC = "<interface type='network'><source network='{network}'/></interface>"
VF = """<hostdev mode='subsystem' type='pci' managed='yes'><source>
<address domain='0x0000' bus='0x01' slot='0x{slot:02x}' function='0x{function}'/></source></hostdev>"""


def image(path: str) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(1 << 20)
    return path


def make(connection: libvirt.virConnect, seed: int, states: int) -> None:
    dice = random.Random(seed)  # noqa: S311
    free = list(range(3))  # virtual functions that no guest of the site has
    for state in range(states):
        prefix = f"s{state}"
        networks = []
        for number in range(2):
            name = f"{prefix}-net{number}"
            network = connection.networkDefineXML(NETWORK.format(name=name, bridge=f"vs{state}n{number}", a=200 + state, b=number))
            network.setAutostart(dice.random() < 0.6)
            network.create()
            networks.append(name)
        pools = []
        for number in range(2):
            name, place = f"{prefix}-pool{number}", dice.choice(sorted(PLACES))
            path = f"{PLACES[place]}/{name}"
            image(f"{path}/v.img")
            pool = connection.storagePoolDefineXML(POOL.format(name=name, path=path))
            pool.setAutostart(dice.random() < 0.7)
            pool.create()
            pools.append(name)
        for number in range(3):
            guest(connection, dice, f"{prefix}-g{number}", networks, pools, free)


def guest(connection: libvirt.virConnect, dice: random.Random, name: str, networks: list[str], pools: list[str], free: list[int]) -> None:
    devices, numa, backing, pins = "", "", "", ""
    kind = dice.choice(["disk", "disk", "volume", "network", "network", "pages", "far", "pinned", "vf"])
    if kind == "disk":
        place = dice.choice([*sorted(PLACES), "good", "gone"])
        path = image(f"{PLACES.get(place, PLACES['good'])}/{name}.img")
        if place == "gone":
            os.unlink(path)
        devices = DISK.format(path=path)
    elif kind == "volume":
        devices = VOLUME.format(pool=dice.choice(pools), volume=dice.choice(["v.img", "v.img", "none.img"]))
    elif kind == "network":
        devices = NIC.format(network=dice.choice(networks))
    elif kind == "pages":
        backing = "<memoryBacking><hugepages/></memoryBacking>"
        numa = f"<numatune><memory mode='strict' nodeset='{dice.choice([0, 1])}'/></numatune>"
    elif kind == "far":
        numa = f"<numatune><memory mode='strict' nodeset='{dice.choice([1, 7])}'/></numatune>"
    elif kind == "pinned":
        pins = f" cpuset='{dice.choice(['1', '60'])}'"
    elif free:
        index = free.pop()
        devices = VF.format(slot=0x10 + index * 2 // 8, function=index * 2 % 8)
    domain = connection.defineXML(DOMAIN.format(
        name=name, memory=dice.choice([4, 8]), devices=devices, numa=numa, backing=backing, pins=pins))  # fmt: skip
    domain.setAutostart(dice.random() < 0.8)


def running(connection: libvirt.virConnect) -> dict[str, list[str]]:
    return {
        "guest": sorted(one.name() for one in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)),
        "network": sorted(one.name() for one in connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)),
        "pool": sorted(one.name() for one in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)),
    }


def destroy(one: libvirt.virDomain | libvirt.virNetwork | libvirt.virStoragePool) -> None:
    """Stop an object; a guest that may use little CPU also takes its time to die (libvirt waits 15 s for it)."""
    for _attempt in range(20):
        if not one.isActive():
            return
        with contextlib.suppress(libvirt.libvirtError):
            one.destroy()
        time.sleep(1)
    sys.exit(f"boot_states.py: {one.name()} does not end")


def remove(connection: libvirt.virConnect) -> None:
    for one in [*connection.listAllDomains(0), *connection.listAllNetworks(0), *connection.listAllStoragePools(0)]:
        if one.name()[0] == "s" and one.name()[1:2].isdigit() and "-" in one.name():
            destroy(one)
            one.undefine()
    for path in PLACES.values():
        shutil.rmtree(path, ignore_errors=True)


def main() -> int:
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    connection = libvirt.open("qemu:///system")
    if sys.argv[1] == "make":
        make(connection, int(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1] == "remove":
        remove(connection)
    else:
        print(json.dumps(running(connection)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
