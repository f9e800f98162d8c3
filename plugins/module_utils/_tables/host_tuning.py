# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kvm_tuning: the memory knobs of a host. They are no XML: `_node` reads and writes them."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import (
    TEXT,
    WORD,
    YES_NO,
    Choice,
    CpuSet,
    Flag,
    Integer,
    Pattern,
    Size,
)


class OptionalCpus(CpuSet):
    """CPUs, or none."""

    def normal(self, value: Any) -> str:
        return "" if str(value).strip() == "" else super().normal(value)


BIT = Flag(true="1", false="0")
COUNT = Integer(high=2**32 - 1)
SOME = Integer(low=1, high=2**32 - 1)

KSM = f.Section(
    "ksm",
    None,
    "Kernel samepage merging: equal pages of guests are kept once. Give only the knobs that should be managed.",
    (
        f.Field("enabled", None, BIT, "Whether pages are merged. V(false) stops merging and keeps what is merged."),
        f.Field("unmerge", None, BIT, "With O(ksm.enabled=false), give every guest its own pages back; needs the memory for them."),
        f.Field("merge_across_nodes", None, BIT, "Whether equal pages of different NUMA nodes are merged."),
        f.Field("max_page_sharing", None, Integer(low=2), "How many pages may share one; the rest get another copy."),
        f.Field("pages_to_scan", None, SOME, "Pages looked at before each pause. Not together with an advisor or ksmtuned."),
        f.Field("sleep_millisecs", None, COUNT, "Length of the pause in milliseconds."),
        f.Field("use_zero_pages", None, BIT, "Whether empty pages are merged with the kernel's zero page."),
        f.Field("stable_node_chains_prune_millisecs", None, COUNT,
                "How often, in milliseconds, copies over O(ksm.max_page_sharing) are looked through for stale ones."),
        f.Field("smart_scan", None, BIT, "Whether pages that were not merged lately are looked at less often (kernel 6.7 and later)."),
        f.Field("advisor_mode", None, Choice(words=("none", "scan-time")),
                "Whether the kernel chooses O(ksm.pages_to_scan) itself (kernel 6.8 and later)."),
        f.Field("advisor_max_cpu", None, Integer(high=100), "CPU use in percent that the advisor stays below."),
        f.Field("advisor_target_scan_time", None, SOME, "Seconds in which the advisor wants all memory scanned."),
        f.Field("advisor_min_pages_to_scan", None, SOME, "The fewest pages that the advisor chooses."),
        f.Field("advisor_max_pages_to_scan", None, SOME, "The most pages that the advisor chooses."),
        f.Field("ksmtuned", None, Choice(words=("masked", "running")),
                "V(masked) stops and masks the ksmtuned service, which otherwise rewrites the same files every minute. V(running) has it "
                "own O(ksm.enabled), O(ksm.pages_to_scan) and O(ksm.sleep_millisecs), which then cannot be given."),
        f.Field("accept_risk", None, BIT,
                "Must be V(true) to enable KSM where it may do harm: on a host without swap (unmerged pages need memory at once), "
                "and with pages merged across NUMA nodes. Guests of different owners can also learn of each other's memory "
                "by timing (CVE-2015-2877), which the host cannot see."),
    ),
)  # fmt: skip

HUGEPAGES = f.Items(
    "hugepages",
    "",
    ("size",),
    "Huge pages set aside on each NUMA node. A size or node that is not named stays as it is; V(absent) gives the pages back.",
    (
        f.Field("size", None, Size(), "Size of a page, as V(2MiB) or V(1GiB).", required=True),
        f.Field("at", None, Choice(words=("runtime", "boot")),
                "Who sets the pages aside for every boot: V(boot), the kernel by its command line; V(runtime), a service early in the boot. "
                "Pages of 1 GiB and more are found at V(boot) only, which is then the default; what the running kernel can give it gives at once."),
        f.Items(
            "nodes",
            "",
            ("node",),
            "How many pages each NUMA node sets aside.",
            (
                f.Field("node", None, Integer(high=1023), "Number of the NUMA node.", required=True),
                f.Field("count", None, Integer(high=2**31 - 1), "Number of pages on this node."),
            ),
        ),
    ),
)

TRANSPARENT = f.Section(
    "transparent_hugepages",
    None,
    "Huge pages that the kernel makes by itself for ordinary memory.",
    (
        f.Field("enabled", None, Choice(words=("always", "madvise", "never")), "Which memory may get them."),
        f.Field("defrag", None, Choice(words=("always", "defer", "defer+madvise", "madvise", "never")),
                "How hard the kernel tries when none is free."),
    ),
)  # fmt: skip

VM = f.Section(
    "vm",
    None,
    "How the kernel treats memory that runs short. Give only what should be managed.",
    (
        f.Field("swappiness", None, Integer(high=200), "How willingly memory of guests is swapped out, V(0) to V(200)."),
        f.Field("overcommit_memory", None, Integer(high=2),
                "Whether more memory may be promised than there is: V(0) within reason, V(1) always, V(2) never over the limit, "
                "which then keeps guests from starting."),
        f.Field("overcommit_ratio", None, Integer(high=1000), "Percent of memory that counts for the limit of V(2)."),
        f.Field("min_free_kbytes", None, SOME, "KiB that the kernel keeps free for itself."),
        f.Field("dirty_background_ratio", None, Integer(high=100), "Percent of memory with unwritten data from which on it is written."),
        f.Field("zone_reclaim_mode", None, Integer(high=7), "Whether a full NUMA node first empties its caches; V(0) for guests."),
    ),
)  # fmt: skip

ISOLATION = f.Section(
    "cpu_isolation",
    None,
    "CPUs that the scheduler leaves to pinned guests. It is on the kernel's command line, and so takes a reboot.",
    (
        f.Field("cpus", None, OptionalCpus(), "The CPUs, as V(2-7,10-15); empty for none. Every NUMA node must keep a whole core.", required=True),
        f.Field("nohz_full", None, YES_NO, "Whether these CPUs also go without the timer tick and the callbacks of RCU."),
    ),
)  # fmt: skip

ARGUMENTS = f.Items(
    "kernel_arguments",
    "",
    ("name",),
    "Words of the kernel's command line, put into the boot loader's configuration and looked for in what it generates. "
    "All others stay; a word that another file sets otherwise is refused.",
    (
        f.Field("name", None, Pattern(pattern=r"[A-Za-z0-9_.-]+", says="a kernel parameter's name"),
                "Name of the parameter, as V(intel_iommu). AMD's IOMMU is on without one.", required=True),
        f.Field("values", None, TEXT, "Its values, one word for each in this order; none for a parameter without a value.", many=True),
    ),
)  # fmt: skip

KNOBS = (
    "ksm", "hugepages", "numa_balancing", "transparent_hugepages", "vm", "nested", "kernel_modules", "bridge_filter", "tuned", "cpu_isolation",
    "kernel_arguments",
)  # fmt: skip

HOST_TUNING = f.Table(
    "tuning",
    "",
    "Memory and KVM settings of a host.",
    (
        KSM,
        HUGEPAGES,
        f.Field("numa_balancing", None, Integer(high=3),
                "Automatic NUMA balancing: V(0) off, V(1) on, V(2) memory tiering. Of no use for pinned guests and for huge pages."),
        TRANSPARENT,
        VM,
        f.Field("nested", None, BIT, "Whether guests can run guests of their own. While guests run it waits for the next reboot."),
        f.Field("kernel_modules", None, Pattern(pattern=r"[A-Za-z0-9_-]+", says="the name of a kernel module"),
                "All modules that are to be loaded now and at every boot, as V(vhost_net); one that is not named any more is not unloaded.",
                many=True),
        f.Field("bridge_filter", None, BIT,
                "Whether frames between guests on one bridge go through the packet filter, once something loads C(br_netfilter). V(false) keeps"
                " them out of it, now, after a boot and whenever that module comes; V(true) is what the kernel does by itself."),
        f.Field("tuned", None, WORD, "Profile that the tuned service applies, as V(virtual-host); V(none) stops tuned."),
        ISOLATION,
        ARGUMENTS,
        f.Field("unset", None, Choice(words=KNOBS),
                "What to give back: the running kernel gets what was found before this module first changed it, and the next boot "
                "nothing of ours.", many=True),
    ),
)  # fmt: skip
