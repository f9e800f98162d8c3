# SPDX-License-Identifier: GPL-3.0-or-later
"""What options of a guest cannot stand together, and what libvirt loses, renumbers or does not survive."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain_cpu import MAX_IOTHREADS, MAX_VCPUS


def check(wanted: dict[str, Any]) -> None:
    """Raise KvmError for options that cannot stand together."""
    vcpus, memory = wanted.get("vcpus") or {}, wanted.get("memory") or {}
    if vcpus.get("count", 0) > vcpus.get("max", MAX_VCPUS):
        raise KvmError(f"vcpus.count: {vcpus['count']} is greater than vcpus.max {vcpus['max']}")
    if "size" in memory and "max" in memory and c.SIZE.bytes(memory["size"]) > c.SIZE.bytes(memory["max"]):
        raise KvmError(f"memory.size: {memory['size']} is greater than memory.max {memory['max']}")
    if "size" in memory and c.SIZE.bytes(memory["size"]) < 1024**2:
        raise KvmError(f"memory.size: {memory['size']} is below 1MiB")
    if wanted.get("template") and (wanted.get("transient") or wanted.get("autostart")):
        raise KvmError("template: a template is never started, so it is neither transient nor started with its host")
    quota = (wanted.get("cputune") or {}).get("quota")
    if quota is not None and 0 < quota < 1000:
        raise KvmError(f"cputune.quota: {quota} is below 1000, the least that libvirt takes")
    _check_cells((wanted.get("cpu") or {}).get("numa") or [])
    for place, disk in enumerate(wanted.get("disks") or []):
        _check_disk(place, disk)
    _check_macs(wanted.get("interfaces") or [])


RESULT_CHECKED = ("vcpus", "memory", "memory_devices", "cpu", "cputune", "disks", "serials", "consoles", "rng")  # by check_result


def check_result(found: dict[str, Any]) -> None:
    """Raise KvmError for options of a definition, stated now or before, that cannot stand together."""
    cpu, vcpus = found.get("cpu") or {}, found.get("vcpus") or {}
    for name in ("check", "features"):
        if cpu.get(name) and not {"mode", "model"} & set(cpu):
            raise KvmError(f"cpu.{name}: needs cpu.mode or cpu.model")
    _check_topology(cpu.get("topology"), vcpus)
    _check_memory_of_nodes(cpu.get("numa") or [], found.get("memory_devices") or [], (found.get("memory") or {}).get("max"))
    for pin in (found.get("cputune") or {}).get("vcpupin") or []:
        if pin["vcpu"] >= vcpus.get("max", MAX_VCPUS):
            raise KvmError(f"cputune.vcpupin[{pin['vcpu']}]: the guest has at most {vcpus['max']} vCPUs, numbered from 0")
    _check_characters(found)
    rate = (found.get("rng") or {}).get("rate")
    if rate and "bytes" not in rate:
        raise KvmError("rng.rate.bytes: must be given with a period")
    for disk in found.get("disks") or []:
        _check_throttling(f"disks[{disk['target']}].iotune", disk.get("iotune") or {})


def check_document(tree: Any) -> None:
    """Raise KvmError for what libvirt does not survive: more I/O threads than it has memory for, and an alias that two devices have.

    libvirt (11.3) takes the alias of the first serial port twice, and then no further change.
    """
    threads = _xml.get(tree, "iothreads")[0] or ""
    if threads.isdigit() and int(threads) > MAX_IOTHREADS:
        raise KvmError(f"iothreads: {threads} is more than {MAX_IOTHREADS}")
    owners: dict[str, str] = {}
    for device in _xml.find_all(tree, "devices/*"):
        name = _xml.get(device, "alias/@name")[0] or ""
        # libvirt gives others itself. The first console is the first serial port once more.
        if not name.startswith("ua-") or device.tag == "console":
            continue
        if name in owners:
            both = f"<{owners[name]}> and <{device.tag}>"
            raise KvmError(f"alias: {name[3:]!r} would be that of two devices, {both}; the name of an interface is one too")
        owners[name] = device.tag


def _check_topology(topology: dict[str, Any] | None, vcpus: dict[str, Any]) -> None:
    lacking = [name for name in ("sockets", "cores", "threads") if topology and name not in topology]
    if lacking:
        raise KvmError(f"cpu.topology: {' and '.join(lacking)} must be given too")
    if topology and "max" in vcpus:
        product = topology["sockets"] * topology.get("dies", 1) * topology["cores"] * topology["threads"]
        if product != vcpus["max"]:
            raise KvmError(f"cpu.topology: makes {product} CPUs, vcpus.max is {vcpus['max']}")


def _check_memory_of_nodes(nodes: list[dict[str, Any]], modules: list[dict[str, Any]], top: str | None) -> None:
    _check_distances(nodes)
    sizes = [c.SIZE.bytes(node["memory"]) for node in nodes if "memory" in node]
    total = sum(sizes) + sum(c.SIZE.bytes(module.get("size", "0")) for module in modules)
    if top and sizes and len(sizes) == len(nodes) and total != c.SIZE.bytes(top):
        who = "its nodes and memory_devices" if modules else "its nodes"
        raise KvmError(f"cpu.numa: {who} have {c.Size.words(total)} together, memory.max is {top}")


def _check_characters(found: dict[str, Any]) -> None:
    """Refuse what libvirt would drop or renumber without a word."""
    for kind in ("serials", "consoles"):
        for item in found.get(kind) or []:
            if item.get("type") == "pty" and "path" in item:
                raise KvmError(f"{kind}[{item['port']}].path: a pty has none, libvirt chooses it")
            if "log_append" in item and "log" not in item:
                raise KvmError(f"{kind}[{item['port']}].log_append: needs log")
    consoles, serials = found.get("consoles") or [], found.get("serials") or []
    ports = sorted(item["port"] for item in consoles)
    if consoles and serials and consoles[0]["port"] == serials[0]["port"]:
        ports = sorted([0, *(item["port"] for item in consoles[1:])])  # the twin of the first serial port has its number
    if ports != list(range(len(ports))):
        raise KvmError(f"consoles: the ports are {', '.join(map(str, ports))}, expected 0 to {len(ports) - 1}")


def _check_distances(cells: list[dict[str, Any]]) -> None:
    """Refuse what libvirt 9.0 dies of: a distance to the node itself that is not 10, or to another that is 10."""
    numbers = [cell["id"] for cell in cells]
    if sorted(numbers) != list(range(len(numbers))):
        raise KvmError(f"cpu.numa: its ids are {', '.join(map(str, numbers))}, expected 0 to {len(numbers) - 1}")
    for cell in cells:
        for other in cell.get("distances") or []:
            option = f"cpu.numa[{cell['id']}].distances[{other['id']}]"
            if other["id"] not in numbers:
                raise KvmError(f"{option}: there is no such node")
            if "value" in other and (other["value"] == 10) != (other["id"] == cell["id"]):
                raise KvmError(f"{option}.value: {other['value']}; it is 10 to the node itself and more to any other")


def _check_throttling(option: str, iotune: dict[str, int]) -> None:
    for metric in ("bytes_sec", "iops_sec"):
        parts = [f"{way}_{metric}" for way in ("read", "write") if iotune.get(f"{way}_{metric}")]
        if parts and iotune.get(f"total_{metric}"):
            raise KvmError(f"{option}: total_{metric} and {' and '.join(parts)} are mutually exclusive; 0 clears one")


def _check_cells(cells: list[dict[str, Any]]) -> None:
    for place, cell in enumerate(cells):
        for other in cells[:place]:
            both = c.CPUSET.numbers(cell.get("cpus", "4095")) & c.CPUSET.numbers(other.get("cpus", "4094"))
            if both:
                raise KvmError(f"cpu.numa[{cell['id']}].cpus: overlaps cpu.numa[{other['id']}] in {min(both)}")


def _check_disk(place: int, disk: dict[str, Any]) -> None:
    sources = [word for word in ("path", "block", "volume") if word in disk]
    name = f"disks[{disk.get('target', place)}]"
    if len(sources) > 1:
        raise KvmError(f"{name}: {' and '.join(sources)} are mutually exclusive")
    if ("volume" in disk) != ("pool" in disk):
        raise KvmError(f"{name}: pool and volume go together")
    if disk.get("device") == "cdrom" and disk.get("readonly") is False:
        raise KvmError(f"{name}.readonly: a cdrom is always read-only")
    letter, bus = disk.get("target", "  ")[:2], disk.get("bus")
    fits = {"vd": ("virtio",), "sd": ("scsi", "sata", "usb"), "hd": ("ide",), "fd": ("fdc",)}
    if bus and bus not in fits.get(letter, (bus,)):
        raise KvmError(f"{name}: target {disk['target']} does not fit bus {bus}")


def _check_macs(interfaces: list[dict[str, Any]]) -> None:
    seen: dict[Any, Any] = {}
    for place, nic in enumerate(interfaces):
        sources = [word for word in ("network", "bridge", "vf", "vf_address", "udp", "type") if word in nic]
        sources = [word for word in sources if word != "type" or nic["type"] not in nic]
        if len(sources) > 1:
            raise KvmError(f"interfaces[{nic.get('name', place)}]: {' and '.join(sources)} are mutually exclusive")
        if nic.get("mac") in seen and nic.get("mac"):
            raise KvmError(f"interfaces[{place}].mac: {nic['mac']} is that of interfaces[{seen[nic['mac']]}] too")
        seen[nic.get("mac")] = place
