# SPDX-License-Identifier: GPL-3.0-or-later
"""Features of the platform, the clock, events, power, performance counters."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import domain_parts as parts


def _switch(name: str, doc: str, path: str = "") -> f.Field:
    return f.Field(name, f"{path or name}/@state", c.SAID_ON_OFF, doc)


HYPERV = f.Section("hyperv", "hyperv", "What makes Windows at home.", (
    f.Field("mode", "@mode", c.Choice(words=("custom", "passthrough")), "V(passthrough) for all that the host has."),
    _switch("relaxed", "Relaxed watchdogs."),
    _switch("vapic", "Virtual APIC."),
    _switch("spinlocks", "Spinlocks that tell the host."),
    f.Field("spinlock_retries", "spinlocks/@retries", c.Integer(low=4095, high=2**32 - 1), "Attempts before they do."),
    _switch("vpindex", "Numbers of virtual processors."),
    _switch("runtime", "Time that each ran."),
    _switch("synic", "Synthetic interrupt controller."),
    _switch("stimer", "Synthetic timers."),
    _switch("stimer_direct", "Their direct mode.", "stimer/direct"),
    _switch("reset", "Reset by the hypervisor."),
    _switch("vendor_id", "A vendor of your own."),
    f.Field("vendor", "vendor_id/@value", c.Pattern(pattern="[^,]{1,12}", says="at most 12 characters"), "The vendor."),
    _switch("frequencies", "Frequencies."),
    _switch("reenlightenment", "Notice of migration."),
    _switch("tlbflush", "Flushing of TLBs."),
    _switch("ipi", "Interrupts between processors."),
    _switch("evmcs", "Enlightened VMCS."),
    _switch("avic", "AVIC."),
))  # fmt: skip
KVM = f.Section("kvm", "kvm", "What KVM does.", (
    _switch("hidden", "Whether it hides from the guest."),
    _switch("hint_dedicated", "Whether each vCPU has a CPU of its own.", "hint-dedicated"),
    _switch("poll_control", "Whether the guest polls before it halts.", "poll-control"),
    _switch("pv_ipi", "Interrupts between processors.", "pv-ipi"),
    _switch("dirty_ring", "A ring of dirtied pages.", "dirty-ring"),
    f.Field("dirty_ring_size", "dirty-ring/@size", c.Integer(low=1024, high=65536), "Its size, a power of 2."),
))  # fmt: skip
MORE: tuple[f.Row, ...] = (
    HYPERV,
    KVM,
    f.Field("pae", "pae", c.PRESENCE, "PAE."),
    f.Field("apic_eoi", "apic/@eoi", c.SAID_ON_OFF, "End of interrupt without leaving the guest."),
    f.Field("hap", "hap", c.PRESENCE, "Hardware-assisted paging."),
    _switch("pvspinlock", "Spinlocks that tell the host."),
    _switch("pmu", "Performance counters."),
    _switch("vmport", "VMware's port."),
    _switch("smm", "System management mode."),
    f.Field("smm_tseg", "smm/tseg", c.SIZE, "Memory of it."),
    _switch("vmcoreinfo", "Information for crash dumps."),
    f.Field("msrs_unknown", "msrs/@unknown", c.Choice(words=("ignore", "fault")), "What follows a register that KVM does not know."),
)
CLOCK: tuple[f.Row, ...] = (
    f.Field("timezone", "@timezone", c.Pattern(pattern=r"[\w+/-]+", says="a time zone"), "Time zone, V(timezone)."),
    f.Field("adjustment", "@adjustment", c.Pattern(pattern=r"reset|0|-?[1-9]\d*", says="seconds or reset"), "Seconds that it is ahead, or V(reset).",
            expanded="it follows what the guest sets"),
    f.Field("basis", "@basis", c.Choice(words=("utc", "localtime")), "Ahead of what, V(variable)."),
    f.Field("start", "@start", c.Integer(high=2**40), "Seconds since 1970 that it starts at, V(absolute)."),
)  # fmt: skip
TIMER: tuple[f.Row, ...] = (
    f.Field("track", "@track", c.Choice(words=("boot", "guest", "wall", "realtime")), "What it follows, V(rtc)."),
    f.Field("frequency", "@frequency", c.Integer(high=2**40), "Hertz, V(tsc)."),
    f.Field("mode", "@mode", c.Choice(words=("auto", "native", "emulate", "paravirt", "smpsafe")), "How V(tsc) is provided."),
    f.Section("catchup", "catchup", "How missed ticks are made good.", (
        f.Field("threshold", "@threshold", c.INTEGER, "Nanoseconds it may lag."),
        f.Field("slew", "@slew", c.INTEGER, "Speed."),
        f.Field("limit", "@limit", c.INTEGER, "Most to make good."),
    )),
)  # fmt: skip
EVENTS: tuple[f.Row, ...] = (
    f.Field("on_lockfailure", "on_lockfailure", c.Choice(words=("poweroff", "restart", "pause", "ignore")), "What follows a lost lock."),
    f.Section("pm", "pm", "Sleep.", (
        f.Field("suspend_to_mem", "suspend-to-mem/@enabled", c.SAID_YES_NO, "Whether the firmware offers S3."),
        f.Field("suspend_to_disk", "suspend-to-disk/@enabled", c.SAID_YES_NO, "Whether the firmware offers S4."),
    )),
    f.Items("perf_events", "perf/event", ("name",), "Counters of the host for this guest.", (
        f.Field("name", "@name", c.WORD, "Event, such as V(cmt).", required=True),
        f.Field("enabled", "@enabled", c.SAID_YES_NO, "Whether it is counted."),
    )),
    f.Field("genid", "genid", c.UUID, "Generation, by which a guest knows that it was copied or restored."),
)  # fmt: skip
SECLABELS = f.Items("seclabels", "seclabel", ("model",), "Security labels of QEMU, one of each driver.", (
    f.Field("model", "@model", c.WORD, "Driver, such as V(selinux), V(apparmor) or V(dac).", required=True),
    f.Field("type", "@type", c.Choice(words=("dynamic", "static", "none")), "Who makes it.", expanded=parts.LABELLED),
    f.Field("relabel", "@relabel", c.SAID_YES_NO, "Whether what the guest uses gets it.", expanded=parts.LABELLED),
    f.Field("label", "label", c.TEXT, "Label, V(static).", expanded=parts.LABELLED),
    f.Field("baselabel", "baselabel", c.TEXT, "Beginning of a label, V(dynamic).", expanded=parts.LABELLED),
), expanded=parts.LABELLED)  # fmt: skip
LAUNCH_SECURITY = f.Section("launch_security", "launchSecurity", "Memory that the host cannot read.", (
    f.Field("type", "@type", c.Choice(words=("sev", "s390-pv")), "How."),
    f.Field("kernel_hashes", "@kernelHashes", c.SAID_YES_NO, "Whether kernel and command line are measured."),
    f.Field("policy", "policy", c.WORD, "Policy, such as V(0x0001)."),
    f.Field("cbitpos", "cbitpos", c.INTEGER, "C-bit of the host."),
    f.Field("reduced_phys_bits", "reducedPhysBits", c.INTEGER, "Bits of addresses that it takes."),
    f.Field("dh_cert", "dhCert", c.TEXT, "Public key of the guest's owner."),
    f.Field("session", "session", c.TEXT, "Session of the guest's owner."),
), removable=True)  # fmt: skip
