# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of a guest. Names follow https://libvirt.org/formatdomain.html in snake_case."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import domain_cpu, domain_features, domain_memory, domain_os
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.devices import DEVICES
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain_cpu import MAX_VCPUS

WEIGHT = c.Integer(low=2, high=262144)  # the range of cgroup cpu.shares; virsh accepts less and libvirt then refuses it
PERIOD = c.Integer(low=1000, high=1000000)
QUOTA = c.Integer(low=-1, high=17592186044415)

CLOUD_INIT = (
    "A medium for cloud-init in a drive of its own, made with what is given and replaced when that changes; the guest reads it"
    " at its next start. Its file is readable by root only, and goes with the guest."
)
WAIT_FOR = (
    "What to wait for once the guest is as wanted, also when nothing had to be done. When it does not come in time the task"
    " fails with RV(evidence), and the guest stays as it is. Check mode does not wait."
)

LIFE = (
    f.Field("name", None, c.NAME, "Name of the guest, unique on its host.", required=True),
    f.Field(
        "state", None, c.Choice(words=("present", "running", "stopped", "paused", "saved", "absent")),
        "What the guest is to be. V(present) defines it and leaves it running or stopped as it is. V(saved) keeps the"
        " memory of a running guest on disk, from where its next start goes on. V(absent) removes the definition, and"
        " of its disks only what O(remove_storage) names.",
    ),
    f.Field("autostart", None, c.YES_NO, "Whether the guest starts with its host."),
    f.Field("clone_from", None, c.NAME, "Guest of the host whose definition a new guest begins with, without its UUID, MAC addresses and"
            " NVRAM; options go on top. Only counts when the guest is first defined. A disk that both would write is refused: give"
            " the clone a volume of its own, for example one that M(anfitrion.kvm.kvm_volume) made from the other."),
    f.Field("template", "metadata/anfitrion:template", c.PRESENCE, "Whether it is a template: it is never started, only cloned by"
            " O(clone_from) of others. It is noted in its metadata."),
    f.Field("transient", None, c.YES_NO, "Whether the guest has no definition, so that it is there while it runs and gone once it stops. A"
            " guest that has one loses it while it runs on; V(false) gives it one. What a transient guest does not take while it runs needs"
            " O(apply=restart_if_needed)."),
    f.Field("plain", None, c.YES_NO, "Whether a guest that is first defined gets only what is stated, and none of the defaults that"
            " RV(defaults_applied) tells of. M(anfitrion.kvm.kvm_domain_info) says it of a guest that lacks one of them."),
    f.Field("mac_seed", None, c.TEXT, "A text, such as the name of the host, from which with the names of guest and interface the MAC"
            " address of a new named interface without O(interfaces[].mac) is computed, so that it is the same each time."),
    f.Field("start_after", None, c.NAME, "Guests that must run, and have what their O(wait_for) asks for, before this one is"
            " started. If one of them fails, this one is left as it is.", many=True),
    f.Field("start_delay", None, c.Integer(high=86400), "Seconds to wait before it is started."),
    f.Field("remove_storage", None, c.TEXT, "Targets of disks, such as V(vda), whose storage is deleted with a guest that is to be"
            " V(absent), once its definition is gone. Refused, before anything is done, for one that is read-only, shareable, used"
            " by another guest, the backing of another image, or in no active pool of the host.", many=True),
    f.Section("cloud_init", None, CLOUD_INIT, (
        f.Field("user_data", None, c.XML, "What to set up, most often a document that starts with C(#cloud-config).", secret=True),
        f.Field("meta_data", None, c.XML, "What the guest is. Its name as C(instance-id) and C(local-hostname) if not given."),
        f.Field("network_config", None, c.XML, "Its network, version 1 or 2 of cloud-init's format."),
        f.Field("path", None, c.PATH, "File of the medium, C(/var/lib/libvirt/images/NAME.seed.iso) if not given."),
        f.Field("detach", None, c.YES_NO, "Whether it is taken out and deleted once the guest is what O(wait_for) asks for. It is"
                " not put in again, whatever is given later."),
    )),
    f.Section("wait_for", None, WAIT_FOR, (
        f.Field("agent", None, c.YES_NO, "Whether to wait until its agent answers."),
        f.Field("address", None, c.TEXT, "V(any), or a network such as V(192.0.2.0/24) in which it is to have an address; known"
                " from its agent, a DHCP lease or ARP."),
        f.Field("port", None, c.Integer(low=1, high=65535), "TCP port that is to take connections from the host."),
        f.Field("host", None, c.TEXT, "Where O(wait_for.port) is, if not at the guest's own address."),
        f.Field("console", None, c.TEXT, "Regular expression for what its serial console is to print. With a C(log) of"
                " O(serials) all of this start counts, without one only what comes while it is waited for."),
        f.Field("timeout", None, c.Integer(low=1), "Seconds for all of it together, V(300) if not given."),
    )),
    f.Field(
        "xml", None, c.XML,
        "Any of libvirt's domain XML, for what no option covers. A whole C(<domain>) is the definition, and what it"
        " leaves out is taken away; any other root element is merged into the definition. Options go on top.",
    ),
    f.Field(
        "unset", None, c.TEXT, "Options to take out of the definition, such as V(cputune.shares), V(disks[vda].cache) or all of"
        " V(interfaces[lan].bandwidth). A running guest is without them at its next start.", many=True,
    ),
)  # fmt: skip

GENERAL = (
    f.Field("uuid", "uuid", c.UUID, "UUID of the guest. Made by libvirt when the guest is first defined without one."),
    f.Field("type", "@type", c.Choice(words=("kvm", "qemu")), "V(kvm), or V(qemu) for emulation without it."),
    f.Field("title", "title", c.TEXT, "A short title, one line.", live="metadata"),
    f.Field("description", "description", c.PROSE, "A description for people.", live="metadata"),
)

OS = f.Section("os", "os", "The machine and how it boots.", (
    f.Field("machine", "type/@machine", c.MACHINE, "Machine type. The aliases V(q35) and V(pc) mean the newest version when"
            " the guest is first defined, and the version it has from then on."),
    f.Field("arch", "type/@arch", c.WORD, "Architecture, such as V(x86_64)."),
    f.Field("firmware", "@firmware", c.Choice(words=("bios", "efi")), "Firmware that libvirt picks by itself."),
    f.Field("loader", "loader", c.PATH, "Path of a firmware image, instead of O(os.firmware)."),
    f.Field("boot", "boot/@dev", c.Choice(words=("hd", "cdrom", "network", "fd")), "Boot order by kind of device.",
            many=True),
    f.Field("kernel", "kernel", c.PATH, "Path on the host of a kernel to boot directly."),
    f.Field("initrd", "initrd", c.PATH, "Path on the host of its initial RAM disk."),
    f.Field("cmdline", "cmdline", c.TEXT, "Its command line."),
    *domain_os.BOOT,
))  # fmt: skip

CPU_AND_MEMORY = (
    f.Section("vcpus", ".", "Virtual CPUs.", (
        # max first: libvirt prints no count that equals it, and then means the count that the guest had.
        f.Field("max", "vcpu", c.Integer(low=1, high=MAX_VCPUS),
                "How many it can be given while it runs. As O(vcpus.count) when the guest is first defined."),
        f.Field("count", "vcpu/@current", c.Integer(low=1, high=MAX_VCPUS), "How many the guest has.", live="vcpus",
                fallback="vcpu"),
        f.Field("cpuset", "vcpu/@cpuset", c.CPUSET, "Host CPUs that they may run on where O(cputune) says nothing."),
        *domain_cpu.VCPUS,
    )),
    *domain_cpu.IOTHREADS,
    f.Section("memory", ".", "Memory and what backs it.", (
        f.Field("size", "currentMemory", c.SIZE, "How much the guest has.", live="memory", fallback="memory"),
        f.Field("max", "memory", c.SIZE,
                "How much the balloon can give it while it runs. As O(memory.size) when the guest is first defined."),
        *domain_memory.BACKING_FIRST,
        f.Field("hugepages", "memoryBacking/hugepages/page/@size", c.SIZE, "Page size of the huge pages that back it."),
        f.Field("locked", "memoryBacking/locked", c.PRESENCE, "Whether it is locked in the host's memory."),
        f.Field("nosharepages", "memoryBacking/nosharepages", c.PRESENCE, "Whether KSM leaves it alone."),
        f.Field("source", "memoryBacking/source/@type", c.Choice(words=("file", "anonymous", "memfd")),
                "What provides it."),
        f.Field("access", "memoryBacking/access/@mode", c.Choice(words=("shared", "private")),
                "Whether other processes may map it."),
        f.Field("allocation", "memoryBacking/allocation/@mode", c.Choice(words=("immediate", "ondemand")),
                "When it is allocated."),
        *domain_memory.BACKING,
    )),
    domain_memory.MEMTUNE,
    domain_memory.BLKIOTUNE,
    domain_memory.RESOURCE,
    f.Section("cpu", "cpu", "The CPU that the guest sees.", (
        f.Field("mode", "@mode", c.Choice(words=("custom", "host-model", "host-passthrough", "maximum")),
                "How the model is chosen.", expanded="libvirt prints host-model as the model that it became"),
        f.Field("model", "model", c.WORD, "Named model, with O(cpu.mode=custom)."),
        f.Field("check", "@check", c.Choice(words=("none", "partial", "full")), "How strictly the host must provide it.",
                expanded="libvirt raises it once the guest runs"),
        f.Field("migratable", "@migratable", c.SAID_ON_OFF, "Whether to leave out what would forbid migration."),
        *domain_cpu.MODEL,
        f.Section("topology", "topology", "How the vCPUs are arranged; the product is O(vcpus.max).", (
            f.Field("sockets", "@sockets", c.Integer(low=1), "Sockets."),
            f.Field("dies", "@dies", c.Integer(low=1), "Dies a socket."),
            f.Field("cores", "@cores", c.Integer(low=1), "Cores a die."),
            f.Field("threads", "@threads", c.Integer(low=1), "Threads a core."),
        )),
        f.Items("features", "feature", ("name",), "Single CPU features.", (
            f.Field("name", "@name", c.WORD, "Feature, as in C(virsh domcapabilities).", required=True),
            f.Field("policy", "@policy", c.Choice(words=("force", "require", "optional", "disable", "forbid")),
                    "What becomes of it."),
        ), purge=True),
        f.Items("numa", "numa/cell", ("id",), "NUMA nodes of the guest.", (
            f.Field("id", "@id", c.Integer(high=1023), "Number of the node. Its place in the list when not given."),
            f.Field("cpus", "@cpus", c.CPUSET, "Virtual CPUs of the node."),
            f.Field("memory", "@memory", c.SIZE, "Memory of the node."),
            *domain_cpu.CELL,
            f.Items("distances", "distances/sibling", ("id",), "Distance to each node, 10 to itself.", (
                f.Field("id", "@id", c.Integer(high=1023), "The other node.", required=True),
                f.Field("value", "@value", c.Integer(low=10, high=255), "Distance."),
            )),
        ), purge=True, numbered=True),
    )),
    f.Section("cputune", "cputune", "CPU shares, quotas and pinning.", (
        f.Field("shares", "shares", WEIGHT, "Relative weight among all guests.", live="scheduler"),
        f.Field("period", "period", PERIOD, "Period of the vCPU quota, in microseconds.", live="scheduler"),
        f.Field("quota", "quota", QUOTA, "CPU time of each vCPU in a period, in microseconds; V(-1) and V(0) are no limit.",
                live="scheduler", dropped=0),
        f.Field("emulatorpin", "emulatorpin/@cpuset", c.CPUSET, "Host CPUs of QEMU's own threads.", live="emulator_pin"),
        f.Items("vcpupin", "vcpupin", ("vcpu",), "Which host CPUs each vCPU may run on.", (
            f.Field("vcpu", "@vcpu", c.Integer(high=MAX_VCPUS - 1), "Number of the vCPU.", required=True),
            f.Field("cpuset", "@cpuset", c.CPUSET, "Host CPUs, for example V(0-3,^2).", live="vcpu_pin"),
        ), live="vcpu_pin", purge=True),
        *domain_cpu.CPUTUNE,
    )),
    f.Section("numatune", "numatune", "Host NUMA nodes that provide the memory.", (
        f.Field("mode", "memory/@mode", c.Choice(words=("strict", "preferred", "interleave", "restrictive")),
                "How strictly."),
        f.Field("nodeset", "memory/@nodeset", c.NODESET, "Host nodes.", live="numa_nodes"),
        domain_memory.NUMA_PLACEMENT,
        f.Items("memnode", "memnode", ("cellid",), "The same for one NUMA node of the guest.", (
            f.Field("cellid", "@cellid", c.Integer(high=1023), "Node of the guest.", required=True),
            f.Field("mode", "@mode", c.Choice(words=("strict", "preferred", "interleave", "restrictive")),
                    "How strictly."),
            f.Field("nodeset", "@nodeset", c.NODESET, "Host nodes."),
        ), purge=True),
    )),
)  # fmt: skip

FEATURES = (
    f.Section("features", "features", "Features of the platform.", (
        f.Field("acpi", "acpi", c.PRESENCE, "ACPI; without it no graceful shutdown."),
        f.Field("apic", "apic", c.PRESENCE, "APIC."),
        f.Field("ioapic", "ioapic/@driver", c.Choice(words=("kvm", "qemu")),
                "Who emulates the I/O APIC; V(qemu) for an IOMMU with interrupt remapping."),
        f.Field("tcg_cache", "tcg/tb-cache", c.SIZE, "Cache of translated code of a guest without KVM."),
        *domain_features.MORE,
    )),
    f.Section("clock", "clock", "The guest's clock.", (
        f.Field("offset", "@offset", c.Choice(words=("utc", "localtime", "timezone", "variable", "absolute")),
                "What it starts from."),
        *domain_features.CLOCK,
        f.Items("timers", "timer", ("name",), "Single sources of time.", (
            f.Field("name", "@name", c.Choice(words=("hpet", "kvmclock", "pit", "rtc", "tsc", "hypervclock", "platform", "armvtimer")), "Timer.",
                    required=True),
            f.Field("present", "@present", c.YES_NO,
                    "Whether the guest has it. A Linux guest that has an C(hpet) leaves it ticking once it has something better, and QEMU "
                    "then wakes up 250 times a second for as long as the guest is idle.", dropped=True),
            f.Field("tickpolicy", "@tickpolicy", c.Choice(words=("delay", "catchup", "merge", "discard")), "What becomes of missed ticks."),
            *domain_features.TIMER,
        )),
    )),
    *domain_features.EVENTS,
    domain_features.SECLABELS,
    domain_features.LAUNCH_SECURITY,
    f.Field("on_poweroff", "on_poweroff", c.Choice(words=("destroy", "restart", "preserve", "rename-restart")),
            "What follows when the guest powers off.", live="lifecycle"),
    f.Field("on_reboot", "on_reboot", c.Choice(words=("destroy", "restart", "preserve", "rename-restart")),
            "What follows when the guest reboots.", live="lifecycle"),
    f.Field("on_crash", "on_crash",
            c.Choice(words=("destroy", "restart", "preserve", "rename-restart", "coredump-destroy", "coredump-restart")),
            "What follows when the guest crashes.", live="lifecycle"),
)  # fmt: skip

TABLE = f.Table("domain", "domain", "A KVM guest.", (
    *LIFE, *GENERAL, OS, domain_os.SYSINFO, domain_os.FWCFG, *CPU_AND_MEMORY, *FEATURES, *DEVICES, domain_memory.MEMORY_DEVICES, *domain_os.QEMU,
))  # fmt: skip

# What a guest gets when it is first defined and neither its options nor its XML say otherwise.
BIRTH: dict[str, Any] = {
    "type": "kvm",
    "os": {"machine": "q35"},
    "vcpus": {"count": 1},
    "memory": {"size": "1GiB"},
    "features": {"acpi": True, "apic": True},
    "cpu": {"mode": "host-passthrough"},
    "rng": {"backend": "/dev/urandom"},
    "consoles": [{"port": 0}],
    "spare_ports": 4,
}


def born(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the sections of a new guest with the defaults for what neither options nor XML say."""
    if wanted.get("plain") or ("xml" in wanted and _xml.parts_of(wanted["xml"])[0].tag == "domain"):
        return {}
    made: dict[str, Any] = {}
    for name, default in BIRTH.items():
        stated = wanted.get(name)
        if isinstance(default, dict):
            made[name] = {**default, **(stated or {})}
        elif stated is None:
            made[name] = default
    rng = wanted.get("rng") or {}
    if rng.get("state") == "absent":
        made.pop("rng")
    elif rng.get("builtin") or "egd" in rng:
        made["rng"] = rng
    if "serials" in wanted:
        made.pop("consoles", None)  # libvirt makes the console that is the twin of serial port 0
    cpu = wanted.get("cpu") or {}
    if "mode" not in cpu and "model" in cpu:
        made["cpu"]["mode"] = "custom"
    elif "mode" not in cpu and wanted.get("type") == "qemu":
        made["cpu"] = cpu  # host-passthrough needs KVM
    return {name: value for name, value in made.items() if value != {}}


def born_with(options: dict[str, Any]) -> bool:
    """Tell whether a new guest would get a default that is not in its options, which are all of it."""
    made = born(options)
    if "pci_controllers" in options or "q35" not in (options.get("os") or {}).get("machine", ""):
        made.pop("spare_ports", None)
    done = complete({**options, **made}, {})
    return any(done.get(name) != options.get(name) for name in {*made, *BIRTH_OF_ITEMS, "balloon"})


def blank(name: str) -> Any:
    """Return the tree that a new guest is written into."""
    tree = _xml.new("domain")
    _xml.put(tree, "name", name)
    _xml.put(tree, "os/type", "hvm")
    return tree


def finish(tree: Any, wanted: dict[str, Any]) -> None:
    """Give a new guest the root ports of its devices and the spare ones, so that libvirt does not make just what it needs."""
    spare = wanted.get("spare_ports") or 0
    machine = _xml.get(tree, "os/type/@machine")[0] or ""
    if not spare or "q35" not in machine or _xml.find_all(tree, "devices/controller[@type='pci']"):
        return
    # Each virtio device, NIC, host device, balloon and the USB controller takes a port of its own.
    devices = sum(len(_xml.find_all(tree, f"devices/{tag}")) for tag in ("disk", "interface", "hostdev", "rng"))
    for model in ("pcie-root", *["pcie-root-port"] * min(devices + 4 + spare, 28)):
        _xml.put(_xml.add(tree, "devices/controller[@type='pci']"), "@model", model)


def complete(wanted: dict[str, Any], found: dict[str, Any], purge: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the wanted options with what follows from them; C(found) are those of the present definition."""
    done = _with_twins(wanted, found, purge)
    if "inputs" in purge:
        done["inputs"] = _with_ps2(done.get("inputs") or [], found.get("inputs") or [])
    for section, amount in (("vcpus", int), ("memory", c.SIZE.bytes)):
        done[section] = _ceiling(done.get(section) or {}, found.get(section) or {}, amount)
    if ("memory_devices" in done or "memory_devices" in purge) and "max" not in (wanted.get("memory") or {}):
        done["memory"] = _with_modules(done, found, "memory_devices" in purge)
    if "serials" in done:  # libvirt takes the first for the twin of the console
        done["serials"] = sorted(done["serials"], key=lambda item: item["port"])
    for kind in BIRTH_OF_ITEMS if not wanted.get("plain") else ():
        if kind in done:
            done[kind] = [_born(kind, item, found.get(kind) or []) for item in done[kind]]
    if done.get("balloon") and not found.get("balloon") and not wanted.get("plain"):
        done["balloon"] = {"model": "virtio", **done["balloon"]}
    if done.get("guest_agent") is not None:
        agent = {"name": "org.qemu.guest_agent.0", "state": "present" if done["guest_agent"] else "absent"}
        done["channels"] = [*done.get("channels", []), agent]
    return {name: value for name, value in done.items() if value != {}}


def _with_twins(wanted: dict[str, Any], found: dict[str, Any], purge: tuple[str, ...]) -> dict[str, Any]:
    """Return the options so that purging one kind keeps the twin of what stays: serial port 0 is console 0 to libvirt."""
    done = dict(wanted)
    for kind, twin in (("consoles", "serials"), ("serials", "consoles")):
        if kind not in purge or _port_0(done.get(kind)) is not None:
            continue
        stated = _port_0(done.get(twin))
        stays = stated["state"] != "absent" if stated else twin not in purge and _port_0(found.get(twin)) is not None
        if stays:
            done[kind] = [*(done.get(kind) or []), {"port": 0}]
    return done


def _with_ps2(wanted: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the input devices with the PS/2 keyboard and mouse: libvirt gives them to every guest again."""
    row = next(row for row in DEVICES if row.name == "inputs")
    stated = [f.match(row, item, found) for item in wanted] if isinstance(row, f.Items) else []
    return [*wanted, *(one for one in found if one.get("bus") == "ps2" and one not in stated)]


def _port_0(items: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    return next(({"state": "present", **item} for item in items or [] if item["port"] == 0), None)


BIRTH_OF_ITEMS = ("disks", "interfaces", "hostdevs", "serials", "consoles")


def _born(kind: str, item: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an item with the defaults that it gets when it is new."""
    row = next(row for row in DEVICES if row.name == kind)
    if not isinstance(row, f.Items) or f.match(row, item, found) or item.get("state") == "absent":
        return item
    if kind == "hostdevs":
        return {"managed": True, **item}
    if kind in ("serials", "consoles"):
        return {"type": "pty", **item}
    if kind == "interfaces":
        return item if "vf" in item or "vf_address" in item else {"model": "virtio", **item}
    bus = {"vd": "virtio", "sd": "sata", "hd": "ide", "fd": "fdc"}.get(item["target"][:2], "virtio")
    name = item.get("path") or item.get("volume") or ""
    image = {"format": "qcow2" if name.endswith(".qcow2") else "raw"} if name or "block" in item else {}
    return {"bus": bus, "device": "disk", **image, **item}


def _ceiling(wanted: dict[str, Any], found: dict[str, Any], amount: Any) -> dict[str, Any]:
    """Return count or size with the maximum that it needs, as much where there is none or less; and a maximum with it."""
    now = "count" if amount is int else "size"
    if now in wanted and "max" not in wanted and ("max" not in found or amount(found["max"]) < amount(wanted[now])):
        return {**wanted, "max": wanted[now]}
    if "max" in wanted and now not in wanted and now in found:
        return {**wanted, now: found[now]}  # else it would follow the maximum
    return wanted


def _with_modules(wanted: dict[str, Any], found: dict[str, Any], purge: bool) -> dict[str, Any]:
    """Return the memory with its maximum as libvirt counts it: what a module has comes on top of the nodes of the guest."""
    memory, left = dict(wanted.get("memory") or {}), list(found.get("memory_devices") or [])
    top = memory.get("max") or (found.get("memory") or {}).get("max")
    if top is None:
        return memory
    more = 0
    for item in wanted.get("memory_devices") or []:
        have = f.match(domain_memory.MEMORY_DEVICES, item, left) or {}
        left = [one for one in left if one is not have]
        more -= c.SIZE.bytes(have.get("size", "0"))
        more += 0 if item.get("state") == "absent" else c.SIZE.bytes(item.get("size") or have.get("size", "0"))
    if purge:
        more -= sum(c.SIZE.bytes(one.get("size", "0")) for one in left)
    return {**memory, "max": c.Size.words(c.SIZE.bytes(top) + more)} if more else memory
