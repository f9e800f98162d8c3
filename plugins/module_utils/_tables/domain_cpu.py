# SPDX-License-Identifier: GPL-3.0-or-later
"""CPU of a guest beyond its model and topology, single vCPUs, threads, and how they are scheduled."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f

MAX_VCPUS = 4096
NUMBER = c.Integer(high=MAX_VCPUS - 1)
PERIOD = c.Integer(low=1000, high=1000000)
QUOTA = c.Integer(low=-1, high=17592186044415)
PRIORITY = c.Integer(high=99)
MAX_IOTHREADS = 4096  # of more than it has memory for libvirtd (9.0 to 11.3) ends: it makes an entry for each
SCHEDULERS = c.Choice(words=("batch", "idle", "fifo", "rr"))

VCPUS: tuple[f.Row, ...] = (
    f.Field("placement", "vcpu/@placement", c.Choice(words=("auto",)), "V(auto) asks C(numad) where to run them."),
    f.Items("each", "vcpus/vcpu", ("id",), "Single vCPUs.", (
        f.Field("id", "@id", NUMBER, "Number.", required=True),
        f.Field("enabled", "@enabled", c.SAID_YES_NO, "Whether it is there when the guest starts."),
        f.Field("hotpluggable", "@hotpluggable", c.SAID_YES_NO, "Whether it can be taken out."),
        f.Field("order", "@order", c.Integer(low=1, high=MAX_VCPUS), "When it is added."),
    ), expanded="libvirt counts those that come and go"),
)  # fmt: skip
MODEL: tuple[f.Row, ...] = (
    f.Field("match", "@match", c.Choice(words=("minimum", "exact", "strict")), "Whether the CPU may have more than the model.",
            expanded="libvirt fills it in"),
    f.Field("fallback", "model/@fallback", c.Choice(words=("allow", "forbid")), "Whether another model is taken when QEMU lacks it.",
            expanded="libvirt fills it in"),
    f.Field("vendor_id", "model/@vendor_id", c.Pattern(pattern="[^,]{12}", says="12 characters"), "Vendor that the guest reads."),
    f.Field("vendor", "vendor", c.WORD, "Vendor that the host must have.", expanded="libvirt fills it in"),
    f.Section("cache", "cache", "Cache that the guest sees.", (
        f.Field("mode", "@mode", c.Choice(words=("emulate", "passthrough", "disable")), "How."),
        f.Field("level", "@level", c.Integer(low=1, high=3), "Which, V(3) for V(emulate)."),
    )),
    f.Section("maxphysaddr", "maxphysaddr", "Bits of physical addresses.", (
        f.Field("mode", "@mode", c.Choice(words=("passthrough", "emulate")), "How."),
        f.Field("bits", "@bits", c.Integer(low=1, high=64), "How many, for V(emulate)."),
    )),
    f.Items("latencies", "numa/interconnects/latency", ("initiator", "target", "cache", "type"), "Latency between NUMA nodes.", (
        f.Field("initiator", "@initiator", NUMBER, "Node that asks.", required=True),
        f.Field("target", "@target", NUMBER, "Node that answers.", required=True),
        f.Field("cache", "@cache", c.INTEGER, "Level of its cache."),
        f.Field("type", "@type", c.Choice(words=("access", "read", "write")), "Of what."),
        f.Field("value", "@value", c.INTEGER, "Nanoseconds."),
    ), together=True),
    f.Items("bandwidths", "numa/interconnects/bandwidth", ("initiator", "target", "cache", "type"), "Bandwidth between NUMA nodes.", (
        f.Field("initiator", "@initiator", NUMBER, "Node that asks.", required=True),
        f.Field("target", "@target", NUMBER, "Node that answers.", required=True),
        f.Field("cache", "@cache", c.INTEGER, "Level of its cache."),
        f.Field("type", "@type", c.Choice(words=("access", "read", "write")), "Of what."),
        f.Field("value", "@value", c.SIZE, "Amount in a second."),
    ), together=True),
)  # fmt: skip
CELL: tuple[f.Row, ...] = (
    f.Field("access", "@memAccess", c.Choice(words=("shared", "private")), "Whether other processes may map it."),
    f.Field("discard", "@discard", c.SAID_YES_NO, "Whether its content need not be kept when the guest ends."),
    f.Items("caches", "cache", ("level",), "Caches on the memory side.", (
        f.Field("level", "@level", c.Integer(low=1), "Level.", required=True),
        f.Field("associativity", "@associativity", c.Choice(words=("none", "direct", "full")), "Associativity."),
        f.Field("policy", "@policy", c.Choice(words=("none", "writeback", "writethrough")), "When it is written."),
        f.Field("size", "size/@value", c.SIZE, "Size."),
        f.Field("line", "line/@value", c.BYTES, "Size of a line."),
    )),
)  # fmt: skip
IOTHREADS: tuple[f.Row, ...] = (
    f.Field("iothreads", "iothreads", c.Integer(high=MAX_IOTHREADS), "How many threads for I/O the guest has.", live="iothreads"),
    f.Items("iothread_ids", "iothreadids/iothread", ("id",), "Single threads for I/O.", (
        f.Field("id", "@id", c.Integer(low=1), "Number.", required=True),
        f.Field("thread_pool_min", "@thread_pool_min", c.INTEGER, "Least threads that work for it."),
        f.Field("thread_pool_max", "@thread_pool_max", c.Integer(low=1), "Most threads that work for it."),
    )),
    f.Section("default_iothread", "defaultiothread", "The main loop of QEMU.", (
        f.Field("thread_pool_min", "@thread_pool_min", c.INTEGER, "Least threads that work for it."),
        f.Field("thread_pool_max", "@thread_pool_max", c.Integer(low=1), "Most threads that work for it."),
    )),
)  # fmt: skip
SCHEDULER: tuple[f.Row, ...] = (
    f.Field("scheduler", "@scheduler", SCHEDULERS, "Class of scheduling."),
    f.Field("priority", "@priority", PRIORITY, "Priority for V(fifo) and V(rr)."),
)
CPUTUNE: tuple[f.Row, ...] = (
    *(
        f.Field(f"{of}_{what}", f"{of}_{what}", codec, f"{what.capitalize()} of {whom}, in microseconds.", live="scheduler",
                dropped=0 if what == "quota" else None)
        for of, whom in (("global", "the whole guest"), ("emulator", "QEMU's own threads"), ("iothread", "each I/O thread"))
        for what, codec in (("period", PERIOD), ("quota", QUOTA))
    ),
    f.Items("iothreadpin", "iothreadpin", ("iothread",), "Which host CPUs each I/O thread may run on.", (
        f.Field("iothread", "@iothread", c.Integer(low=1), "Number of the thread.", required=True),
        f.Field("cpuset", "@cpuset", c.CPUSET, "Host CPUs.", live="iothread_pin"),
    ), live="iothread_pin", purge=True),
    f.Items("vcpusched", "vcpusched", ("vcpu",), "How each vCPU is scheduled.", (
        f.Field("vcpu", "@vcpus", NUMBER, "Number of the vCPU.", required=True), *SCHEDULER,
    ), purge=True),
    f.Items("iothreadsched", "iothreadsched", ("iothread",), "How each I/O thread is scheduled.", (
        f.Field("iothread", "@iothreads", c.Integer(low=1), "Number of the thread.", required=True), *SCHEDULER,
    ), purge=True),
    f.Section("emulatorsched", "emulatorsched", "How QEMU's own threads are scheduled.", SCHEDULER),
    f.Items("cachetune", "cachetune", ("vcpus",), "Parts of the host's CPU cache, by C(resctrl).", (
        f.Field("vcpus", "@vcpus", c.CPUSET, "Which vCPUs.", required=True),
        f.Items("caches", "cache", ("id", "level", "type"), "What they get.", (
            f.Field("id", "@id", NUMBER, "Cache of the host.", required=True),
            f.Field("level", "@level", c.Integer(low=1), "Level.", required=True),
            f.Field("type", "@type", c.Choice(words=("both", "code", "data")), "For what.", required=True),
            f.Field("size", "@size", c.SIZE, "How much."),
        ), together=True),
        f.Items("monitors", "monitor", ("level", "vcpus"), "What is measured.", (
            f.Field("level", "@level", c.Integer(low=1), "Level.", required=True),
            f.Field("vcpus", "@vcpus", c.CPUSET, "Which vCPUs.", required=True),
        ), together=True),
    )),
    f.Items("memorytune", "memorytune", ("vcpus",), "Parts of the host's memory bandwidth, by C(resctrl).", (
        f.Field("vcpus", "@vcpus", c.CPUSET, "Which vCPUs.", required=True),
        f.Items("nodes", "node", ("id",), "What they get.", (
            f.Field("id", "@id", NUMBER, "Node of the host.", required=True),
            f.Field("bandwidth", "@bandwidth", c.INTEGER, "Percent, or MB/s."),
        )),
    )),
)  # fmt: skip
