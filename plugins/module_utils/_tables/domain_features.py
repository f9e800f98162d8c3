# SPDX-License-Identifier: GPL-3.0-or-later
"""Features of the platform, the clock, events, power, performance counters."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items, Row, Section
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain_parts import LABELLED


def _switch(name: str, doc: str, path: str = "") -> Field:
    return Field(name, f"{path or name}/@state", c.SAID_ON_OFF, doc)


HYPERV = Section("hyperv", "hyperv", "What makes Windows at home.", (
    Field("mode", "@mode", c.Choice(words=("custom", "passthrough")), "V(passthrough) for all that the host has."),
    _switch("relaxed", "Relaxed watchdogs."),
    _switch("vapic", "Virtual APIC."),
    _switch("spinlocks", "Spinlocks that tell the host."),
    Field("spinlock_retries", "spinlocks/@retries", c.Integer(low=4095, high=2**32 - 1), "Attempts before they do."),
    _switch("vpindex", "Numbers of virtual processors."),
    _switch("runtime", "Time that each ran."),
    _switch("synic", "Synthetic interrupt controller."),
    _switch("stimer", "Synthetic timers."),
    _switch("stimer_direct", "Their direct mode.", "stimer/direct"),
    _switch("reset", "Reset by the hypervisor."),
    _switch("vendor_id", "A vendor of your own."),
    Field("vendor", "vendor_id/@value", c.Pattern(pattern="[^,]{1,12}", says="at most 12 characters"), "The vendor."),
    _switch("frequencies", "Frequencies."),
    _switch("reenlightenment", "Notice of migration."),
    _switch("tlbflush", "Flushing of TLBs."),
    _switch("ipi", "Interrupts between processors."),
    _switch("evmcs", "Enlightened VMCS."),
    _switch("avic", "AVIC."),
))  # fmt: skip
KVM = Section("kvm", "kvm", "What KVM does.", (
    _switch("hidden", "Whether it hides from the guest."),
    _switch("hint_dedicated", "Whether each vCPU has a CPU of its own.", "hint-dedicated"),
    _switch("poll_control", "Whether the guest polls before it halts.", "poll-control"),
    _switch("pv_ipi", "Interrupts between processors.", "pv-ipi"),
    _switch("dirty_ring", "A ring of dirtied pages.", "dirty-ring"),
    Field("dirty_ring_size", "dirty-ring/@size", c.Integer(low=1024, high=65536), "Its size, a power of 2."),
))  # fmt: skip
MORE: tuple[Row, ...] = (
    HYPERV,
    KVM,
    Field("pae", "pae", c.PRESENCE, "PAE."),
    Field("apic_eoi", "apic/@eoi", c.SAID_ON_OFF, "End of interrupt without leaving the guest."),
    Field("hap", "hap", c.PRESENCE, "Hardware-assisted paging."),
    _switch("pvspinlock", "Spinlocks that tell the host."),
    _switch("pmu", "Performance counters."),
    _switch("vmport", "VMware's port."),
    _switch("smm", "System management mode."),
    Field("smm_tseg", "smm/tseg", c.SIZE, "Memory of it."),
    _switch("vmcoreinfo", "Information for crash dumps."),
    Field("msrs_unknown", "msrs/@unknown", c.Choice(words=("ignore", "fault")), "What follows a register that KVM does not know."),
)
CLOCK: tuple[Row, ...] = (
    Field("timezone", "@timezone", c.Pattern(pattern=r"[\w+/-]+", says="a time zone"), "Time zone, V(timezone)."),
    Field("adjustment", "@adjustment", c.Pattern(pattern=r"reset|0|-?[1-9]\d*", says="seconds or reset"), "Seconds that it is ahead, or V(reset).",
          expanded="it follows what the guest sets"),
    Field("basis", "@basis", c.Choice(words=("utc", "localtime")), "Ahead of what, V(variable)."),
    Field("start", "@start", c.Integer(high=2**40), "Seconds since 1970 that it starts at, V(absolute)."),
)  # fmt: skip
TIMER: tuple[Row, ...] = (
    Field("track", "@track", c.Choice(words=("boot", "guest", "wall", "realtime")), "What it follows, V(rtc)."),
    Field("frequency", "@frequency", c.Integer(high=2**40), "Hertz, V(tsc)."),
    Field("mode", "@mode", c.Choice(words=("auto", "native", "emulate", "paravirt", "smpsafe")), "How V(tsc) is provided."),
    Section("catchup", "catchup", "How missed ticks are made good.", (
        Field("threshold", "@threshold", c.INTEGER, "Nanoseconds it may lag."),
        Field("slew", "@slew", c.INTEGER, "Speed."),
        Field("limit", "@limit", c.INTEGER, "Most to make good."),
    )),
)  # fmt: skip
EVENTS: tuple[Row, ...] = (
    Field("on_lockfailure", "on_lockfailure", c.Choice(words=("poweroff", "restart", "pause", "ignore")), "What follows a lost lock."),
    Section("pm", "pm", "Sleep.", (
        Field("suspend_to_mem", "suspend-to-mem/@enabled", c.SAID_YES_NO, "Whether the firmware offers S3."),
        Field("suspend_to_disk", "suspend-to-disk/@enabled", c.SAID_YES_NO, "Whether the firmware offers S4."),
    )),
    Items("perf_events", "perf/event", ("name",), "Counters of the host for this guest.", (
        Field("name", "@name", c.WORD, "Event, such as V(cmt).", required=True),
        Field("enabled", "@enabled", c.SAID_YES_NO, "Whether it is counted."),
    )),
    Field("genid", "genid", c.UUID, "Generation, by which a guest knows that it was copied or restored."),
)  # fmt: skip
SECLABELS = Items("seclabels", "seclabel", ("model",), "Security labels of QEMU, one of each driver.", (
    Field("model", "@model", c.WORD, "Driver, such as V(selinux), V(apparmor) or V(dac).", required=True),
    Field("type", "@type", c.Choice(words=("dynamic", "static", "none")), "Who makes it.", expanded=LABELLED),
    Field("relabel", "@relabel", c.SAID_YES_NO, "Whether what the guest uses gets it.", expanded=LABELLED),
    Field("label", "label", c.TEXT, "Label, V(static).", expanded=LABELLED),
    Field("baselabel", "baselabel", c.TEXT, "Beginning of a label, V(dynamic).", expanded=LABELLED),
), expanded=LABELLED)  # fmt: skip
LAUNCH_SECURITY = Section("launch_security", "launchSecurity", "Memory that the host cannot read.", (
    Field("type", "@type", c.Choice(words=("sev", "s390-pv")), "How."),
    Field("kernel_hashes", "@kernelHashes", c.SAID_YES_NO, "Whether kernel and command line are measured."),
    Field("policy", "policy", c.WORD, "Policy, such as V(0x0001)."),
    Field("cbitpos", "cbitpos", c.INTEGER, "C-bit of the host."),
    Field("reduced_phys_bits", "reducedPhysBits", c.INTEGER, "Bits of addresses that it takes."),
    Field("dh_cert", "dhCert", c.TEXT, "Public key of the guest's owner."),
    Field("session", "session", c.TEXT, "Session of the guest's owner."),
), removable=True)  # fmt: skip
