# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of a guest: hot-plug, limits, modules; and block I/O weights and the cgroup, which limit a guest too."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import domain_parts as parts

RATE = c.Integer(high=10**15)
LIMIT = c.Size(low=0)
WEIGHT = c.Integer(low=10, high=1000)

BACKING_FIRST: tuple[f.Row, ...] = (
    # Before memory.hugepages, which is the first page there is.
    f.Items("hugepages_of_nodes", "memoryBacking/hugepages/page", ("nodeset",), "Page size of the huge pages for NUMA nodes of the guest.", (
        f.Field("nodeset", "@nodeset", c.NODESET, "Nodes of the guest.", required=True),
        f.Field("size", "@size", c.SIZE, "Page size."),
    )),
)  # fmt: skip
BACKING: tuple[f.Row, ...] = (
    f.Field("hotplug_max", "maxMemory", c.SIZE, "How much O(memory_devices) can raise it to while it runs; needs a NUMA node."),
    f.Field("hotplug_slots", "maxMemory/@slots", c.Integer(low=1, high=256), "How many of them there can be."),
    f.Field("allocation_threads", "memoryBacking/allocation/@threads", c.Integer(low=1), "Threads that allocate it."),
    f.Field("discard", "memoryBacking/discard", c.PRESENCE, "Whether its content need not be kept when the guest ends."),
    f.Field("dump", "memory/@dumpCore", c.SAID_ON_OFF, "Whether a core dump of QEMU has it."),
)
NUMA_PLACEMENT = f.Field("placement", "memory/@placement", c.Choice(words=("auto",)), "V(auto) asks C(numad) for them.")
MEMTUNE = f.Section("memtune", "memtune", "Limits of the memory that QEMU uses.", (
    f.Field("hard_limit", "hard_limit", LIMIT, "Most; the guest is killed beyond it.", live="memory_limit"),
    f.Field("soft_limit", "soft_limit", LIMIT, "Most when the host is short of it.", live="memory_limit"),
    f.Field("swap_hard_limit", "swap_hard_limit", LIMIT, "Most with swap.", live="memory_limit"),
))  # fmt: skip
BLKIOTUNE = f.Section("blkiotune", "blkiotune", "Weight of its block I/O among all guests.", (
    f.Field("weight", "weight", WEIGHT, "Weight, V(100) to V(1000) on an old kernel.", live="block_weight"),
    f.Items("devices", "device", ("path",), "Single devices of the host.", (
        f.Field("path", "path", c.PATH, "Block device.", required=True),
        f.Field("weight", "weight", WEIGHT, "Weight."),
        f.Field("read_iops_sec", "read_iops_sec", RATE, "Reads a second.", dropped=0),
        f.Field("write_iops_sec", "write_iops_sec", RATE, "Writes a second.", dropped=0),
        f.Field("read_bytes_sec", "read_bytes_sec", RATE, "Bytes read a second.", dropped=0),
        f.Field("write_bytes_sec", "write_bytes_sec", RATE, "Bytes written a second.", dropped=0),
    )),
))  # fmt: skip
RESOURCE = f.Section("resource", "resource", "Where the host counts it.", (
    f.Field("partition", "partition", c.PATH, "Cgroup, such as V(/machine/production).", expanded="libvirt fills it in"),
    f.Field("appid", "fibrechannel/@appid", c.TEXT, "Name that a Fibre Channel fabric knows it by."),
))  # fmt: skip
MEMORY_DEVICES = f.Items("memory_devices", "devices/memory", ("model", "place"), "Memory modules; they count in O(memory.max).", (
    f.Field("model", "@model", c.Choice(words=("dimm", "nvdimm", "virtio-mem", "virtio-pmem", "sgx-epc")), "Kind.", required=True),
    f.Field("place", None, c.INTEGER, "Number among those of its kind. Its place in the list when not given."),
    parts.ALIAS,
    f.Field("size", "target/size", c.SIZE, "Size."),
    f.Field("node", "target/node", c.Integer(high=1023), "NUMA node of the guest."),
    f.Field("block", "target/block", c.SIZE, "Size of the parts in which V(virtio-mem) grows."),
    f.Field("requested", "target/requested", c.SIZE, "How much of V(virtio-mem) the guest is to have."),
    f.Field("label", "target/label/size", c.SIZE, "Size of the label of V(nvdimm)."),
    f.Field("readonly", "target/readonly", c.PRESENCE, "Whether the guest cannot write it."),
    f.Field("access", "@access", c.Choice(words=("shared", "private")), "Whether other processes may map it."),
    f.Field("discard", "@discard", c.SAID_YES_NO, "Whether its content need not be kept when the guest ends."),
    f.Field("path", "source/path", c.PATH, "File or device behind it."),
    f.Field("pagesize", "source/pagesize", c.SIZE, "Page size."),
    f.Field("nodemask", "source/nodemask", c.NODESET, "Nodes of the host."),
    f.Field("alignsize", "source/alignsize", c.SIZE, "Alignment."),
    f.Field("pmem", "source/pmem", c.PRESENCE, "Whether O(memory_devices[].path) is persistent memory."),
    parts.ADDRESS,
), live="device", purge=True, placed=True)  # fmt: skip
