"""kvm_tuning over a host in a directory: KSM, huge pages, NUMA balancing, transparent huge pages, nested guests."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import bridge_filter, hugepages, kernel_modules, ksm, tuning
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import Write
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Output

from .conftest import Host, apply, refusal

KSM = "/sys/kernel/mm/ksm"
NODE = "/sys/devices/system/node"
KNOBS = {
    "run": 0, "merge_across_nodes": 1, "max_page_sharing": 256, "pages_to_scan": 100, "sleep_millisecs": 20,
    "use_zero_pages": 0, "smart_scan": 1, "advisor_mode": "[none] scan-time", "advisor_max_cpu": 70,
    "pages_shared": 0, "pages_sharing": 0,
}  # fmt: skip
MEMINFO = "MemTotal: 4000000 kB\nMemAvailable: 2000000 kB\nSwapTotal: 1000000 kB\nSwapFree: 1000000 kB"
NODE_MEMINFO = "Node 0 MemTotal: 2000000 kB\nNode 0 MemFree: 1000000 kB"


@pytest.fixture
def machine(host: Host) -> Host:
    """A host with two NUMA nodes, KSM off and no huge pages."""
    files: dict[str, Any] = {f"{KSM}/{name}": value for name, value in KNOBS.items()}
    for node in (0, 1):
        files[f"{NODE}/node{node}/meminfo"] = NODE_MEMINFO
        files[f"{NODE}/node{node}/hugepages/hugepages-2048kB/nr_hugepages"] = 0
        files[f"{NODE}/node{node}/hugepages/hugepages-2048kB/surplus_hugepages"] = 0
    files["/proc/meminfo"] = MEMINFO
    files["/proc/sys/kernel/numa_balancing"] = 1
    files["/proc/sys/vm/compact_memory"] = ""
    files["/sys/kernel/mm/transparent_hugepage/enabled"] = "[always] madvise never"
    files["/sys/module/kvm_amd/parameters/nested"] = "0"
    files["/sys/module/kvm_amd/refcnt"] = "0"
    return host.has(files)


def merging(machine: Host, shared: int = 10, sharing: int = 100) -> None:
    """Make pages shared, and let the kernel refuse and unmerge as it does."""
    for name, value in (("run", 1), ("pages_shared", shared), ("pages_sharing", sharing)):
        machine.set(f"{KSM}/{name}", value)

    def react(path: str, value: str) -> None:
        if path == f"{KSM}/run" and value == "2":
            machine.set(f"{KSM}/pages_shared", 0)
        if path.rsplit("/", 1)[-1] in ksm.STRUCTURAL:
            assert machine.number(f"{KSM}/pages_shared") == 0, "EBUSY"

    machine.react = react


@pytest.mark.row("S03")
def test_ksm_is_set_in_the_order_that_the_kernel_wants_and_for_every_boot(machine: Host) -> None:
    wanted = {"enabled": True, "merge_across_nodes": False, "pages_to_scan": 500, "advisor_mode": "none"}
    plan = apply(lambda: tuning.plan(machine, {"ksm": wanted}))
    assert [path.rsplit("/", 1)[-1] for path, _value in machine.written] == ["merge_across_nodes", "pages_to_scan", "run"]
    assert machine.read(ksm.PERSISTED).splitlines()[1:] == [  # type: ignore[union-attr]
        f"w! {KSM}/merge_across_nodes - - - - 0",
        f"w! {KSM}/advisor_mode - - - - none",
        f"w! {KSM}/pages_to_scan - - - - 500",
        f"w! {KSM}/run - - - - 1",
    ]
    assert plan.facts["reboot_required"] is False


@pytest.mark.row("S03")
def test_merged_pages_are_separated_before_merge_across_nodes_changes_and_merging_goes_on_after(machine: Host) -> None:
    merging(machine)
    apply(lambda: tuning.plan(machine, {"ksm": {"merge_across_nodes": False}}))
    assert machine.written == [(f"{KSM}/run", "2"), (f"{KSM}/merge_across_nodes", "0"), (f"{KSM}/run", "1")]


@pytest.mark.row("S03")
def test_pages_are_not_separated_without_the_memory_for_them(machine: Host, tree: Callable[[], dict[str, str]]) -> None:
    merging(machine, sharing=10**9)
    before = tree()
    words = refusal(lambda: tuning.plan(machine, {"ksm": {"max_page_sharing": 128}}))
    assert words.startswith("ksm.max_page_sharing: all merged pages must be separated first, which needs")
    assert tree() == before


def test_unmerge_gives_the_pages_back_and_is_then_no_change(machine: Host) -> None:
    merging(machine)
    apply(lambda: tuning.plan(machine, {"ksm": {"enabled": False, "unmerge": True}}))
    assert machine.written == [(f"{KSM}/run", "2"), (f"{KSM}/run", "0")]


def test_enabled_false_alone_keeps_what_is_merged(machine: Host) -> None:
    merging(machine)
    apply(lambda: tuning.plan(machine, {"ksm": {"enabled": False}}))
    assert machine.written == [(f"{KSM}/run", "0")]


@pytest.mark.row("S03")
@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"advisor_mode": "scan-time", "pages_to_scan": 5}, "ksm.pages_to_scan: advisor_mode is scan-time, which chooses it"),
        ({"advisor_target_scan_time": 5}, "ksm.advisor_target_scan_time: this kernel has no /sys/kernel/mm/ksm/advisor_target"),
        ({"unmerge": True}, "ksm.unmerge: needs enabled: false"),
        ({"enabled": True}, "ksm.enabled: merge_across_nodes is on and the host has 2 NUMA nodes"),
    ],
)
def test_what_ksm_cannot_do_is_told_before_anything_is_written(machine: Host, wanted: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: tuning.plan(machine, {"ksm": wanted}))
    assert not machine.written


def test_a_host_without_swap_needs_the_risk_accepted(machine: Host) -> None:
    machine.set("/proc/meminfo", "MemAvailable: 2000000 kB\nSwapTotal: 0 kB")
    wanted = {"enabled": True, "merge_across_nodes": False}
    assert "the host has no swap" in refusal(lambda: tuning.plan(machine, {"ksm": wanted}))
    plan = apply(lambda: tuning.plan(machine, {"ksm": {**wanted, "accept_risk": True}}))
    assert plan.facts["ksm_risks"]


@pytest.mark.row("S03")
def test_ksmtuned_is_named_as_the_second_writer_and_masked_when_asked(machine: Host) -> None:
    machine.has({"/usr/lib/systemd/system/ksmtuned.service": "[Service]"})
    assert "ksm.pages_to_scan: the ksmtuned service rewrites it" in refusal(lambda: tuning.plan(machine, {"ksm": {"pages_to_scan": 7}}))
    plan = tuning.plan(machine, {"ksm": {"pages_to_scan": 7, "ksmtuned": "masked"}})
    assert [step.sentence for step in plan.steps][:2] == ["write /etc/anfitrion.d/found.json", "stop and mask ksmtuned"]
    machine.has({"/etc/systemd/system/ksmtuned.service": "->/dev/null"})
    assert "stop and mask ksmtuned" not in [step.sentence for step in tuning.plan(machine, {"ksm": {"pages_to_scan": 7}}).steps]


def test_a_knob_that_the_kernel_refuses_puts_the_earlier_ones_back(machine: Host) -> None:
    def react(path: str, value: str) -> None:
        if path.endswith("/run") and value == "1":
            machine.react = lambda _path, _value: None
            machine.set(path, 0)
            raise_refused(path, value)

    machine.react = react
    plan = tuning.plan(machine, {"ksm": {"enabled": True, "merge_across_nodes": False, "sleep_millisecs": 50}})
    from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import execute  # noqa: PLC0415

    assert "what was done before it is undone" in refusal(lambda: execute(plan))
    assert machine.read(f"{KSM}/sleep_millisecs") == "20"
    assert machine.read(f"{KSM}/merge_across_nodes") == "1"
    assert not machine.exists(ksm.PERSISTED)


def raise_refused(path: str, value: str) -> None:
    from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError  # noqa: PLC0415

    raise KvmError(f"{path}: the kernel refused {value!r}: EBUSY")


def test_knobs_of_an_earlier_task_stay_for_the_next_boot(machine: Host) -> None:
    apply(lambda: tuning.plan(machine, {"ksm": {"sleep_millisecs": 50}}))
    apply(lambda: tuning.plan(machine, {"ksm": {"pages_to_scan": 70}}))
    assert {"sleep_millisecs", "pages_to_scan"} <= set(ksm.tmpfiles_values(KSM, machine.text(ksm.PERSISTED)))


KSM_WANTED = st.fixed_dictionaries(
    {},
    optional={
        "enabled": st.booleans(),
        "merge_across_nodes": st.booleans(),
        "max_page_sharing": st.integers(2, 300),
        "pages_to_scan": st.integers(1, 5000),
        "use_zero_pages": st.booleans(),
    },
)
KSM_NOW = st.builds(
    lambda run, across, share, scan, zero, shared: ksm.Snapshot(
        {"run": run, "merge_across_nodes": across, "max_page_sharing": share, "pages_to_scan": scan, "use_zero_pages": zero},
        pages_shared=shared,
        available=2**40,
    ),
    st.sampled_from("012"), st.sampled_from("01"), st.integers(2, 300).map(str), st.integers(1, 5000).map(str),
    st.sampled_from("01"), st.sampled_from([0, 0, 50]),
)  # fmt: skip


@given(KSM_WANTED, KSM_NOW)
def test_the_writes_of_ksm_never_meet_a_busy_kernel_and_end_as_wanted(wanted: dict[str, Any], now: ksm.Snapshot) -> None:
    state, shared = dict(now.knobs), now.pages_shared
    if state["run"] == "2":
        shared = 0
        now = ksm.Snapshot(now.knobs, available=2**40)
    for write in ksm.plan_writes(wanted, now):
        name = write.path.rsplit("/", 1)[-1]
        assert write.before == state[name]
        assert not (name in ksm.STRUCTURAL and shared), write
        state[name] = write.value
        shared = 0 if name == "run" and write.value == "2" else shared
    assert {name: state[name] for name in ksm.wanted_knobs(wanted)} == ksm.wanted_knobs(wanted)
    assert state["run"] in ("0", "1") or "run" not in {w.path.rsplit("/", 1)[-1] for w in ksm.plan_writes(wanted, now)}
    assert ksm.plan_writes(wanted, ksm.Snapshot(state, shared, available=2**40)) == ()


def pages(*counts: int) -> dict[str, Any]:
    return {"hugepages": [{"size": "2MiB", "nodes": [{"node": n, "count": c} for n, c in enumerate(counts)]}]}


@pytest.mark.row("S15")
def test_huge_pages_are_set_node_by_node_and_for_every_boot(machine: Host) -> None:
    apply(lambda: tuning.plan(machine, pages(8, 4)))
    assert machine.text(hugepages.PERSISTED).endswith("2048 0 8\n2048 1 4\n")  # type: ignore[union-attr]
    assert machine.exists(f"/etc/systemd/system/sysinit.target.wants/{hugepages.UNIT}")
    assert tuning.read(machine, None)[0]["hugepages"] == [
        {"size": "2MiB", "nodes": [{"node": 0, "count": 8}, {"node": 1, "count": 4}]}
    ]


def test_fewer_pages_than_asked_are_set_back_and_told_with_both_numbers(machine: Host) -> None:
    apply(lambda: tuning.plan(machine, pages(2, 2)))
    file = f"{NODE}/node1/hugepages/hugepages-2048kB/nr_hugepages"
    machine.exists(file)
    original = Host.write

    def scarce(path: str, value: str) -> None:
        original(machine, path, "5" if path == file and int(value) > 5 else value)

    machine.write = scarce  # type: ignore[method-assign]
    from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import execute  # noqa: PLC0415

    words = refusal(lambda: execute(tuning.plan(machine, pages(3, 10))))
    assert "hugepages[2MiB].nodes[1].count: asked 10, the kernel gave 5" in words
    assert "set back to 2" in words
    assert machine.number(file) == 2
    assert machine.number(f"{NODE}/node0/hugepages/hugepages-2048kB/nr_hugepages") == 2


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (pages(0, 0, 1), "hugepages[2MiB].nodes[2]: this host has no such NUMA node; it has 0, 1"),
        (pages(100000), "needs 200000 MiB more on node 0, which has 878 MiB to give"),
        ({"hugepages": [{"size": "1GiB"}]}, "hugepages[1GiB]: this host has no pages of that size; it has 2MiB"),
        ({"hugepages": [{"size": "2MiB", "nodes": [{"node": 0}]}]}, "hugepages[2MiB].nodes[0]: count must be given"),
    ],
)
def test_huge_pages_that_cannot_be_are_told_before_anything_is_written(machine: Host, wanted: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: tuning.plan(machine, wanted))
    assert not machine.written


def test_a_sysctl_that_spreads_huge_pages_over_all_nodes_is_named(machine: Host) -> None:
    machine.has({"/etc/sysctl.d/70-huge.conf": "vm.nr_hugepages = 64"})
    assert "/etc/sysctl.d/70-huge.conf sets vm.nr_hugepages=64" in refusal(lambda: tuning.plan(machine, pages(1)))


def test_pages_that_guests_still_use_are_pending_and_no_change(machine: Host) -> None:
    directory = f"{NODE}/node0/hugepages/hugepages-2048kB"
    apply(lambda: tuning.plan(machine, pages(4)))
    machine.set(f"{directory}/nr_hugepages", 10)
    machine.set(f"{directory}/surplus_hugepages", 6)
    plan = tuning.plan(machine, pages(4))
    assert not plan.changed
    assert plan.pending == ("hugepages[2MiB].nodes[0].count",)


def test_an_absent_size_gives_all_its_pages_back_and_is_forgotten(machine: Host) -> None:
    apply(lambda: tuning.plan(machine, pages(4, 4)))
    apply(lambda: tuning.plan(machine, {"hugepages": [{"size": "2MiB", "state": "absent"}]}))
    assert not machine.exists(hugepages.PERSISTED)
    assert not machine.exists(f"/etc/systemd/system/{hugepages.UNIT}")


@given(st.lists(st.integers(0, 400), min_size=2, max_size=2), st.lists(st.integers(0, 400), min_size=2, max_size=2))
def test_what_a_node_gives_back_counts_for_what_it_gets(now: list[int], wanted: list[int]) -> None:
    pools = {(2048, node): hugepages.Pool(count) for node, count in enumerate(now)}
    spare = {0: 200 * 2048 * 1024, 1: 200 * 2048 * 1024}
    fits = all(want - have <= 200 for want, have in zip(wanted, now))
    with nullcontext() if fits else pytest.raises(KvmError):
        hugepages.require_memory({(2048, n): c for n, c in enumerate(wanted)}, hugepages.Snapshot(pools, spare))


def test_numa_balancing_is_set_now_and_for_every_boot(machine: Host) -> None:
    apply(lambda: tuning.plan(machine, {"numa_balancing": 0}))
    assert machine.read("/proc/sys/kernel/numa_balancing") == "0"
    assert "kernel.numa_balancing = 0" in (machine.read("/etc/sysctl.d/90-anfitrion-kvm.conf") or "")


def test_numa_balancing_is_skipped_with_a_warning_where_the_kernel_has_none(host: Host) -> None:
    plan = tuning.plan(host, {"numa_balancing": 0})
    assert not plan.changed
    assert "this kernel has no" in plan.warnings[0]


def test_a_later_sysctl_file_that_says_otherwise_is_named(machine: Host) -> None:
    machine.has({"/etc/sysctl.d/95-mine.conf": "kernel.numa_balancing=1"})
    assert "/etc/sysctl.d/95-mine.conf sets kernel.numa_balancing to 1" in refusal(lambda: tuning.plan(machine, {"numa_balancing": 0}))


def test_transparent_huge_pages_take_the_kernels_words(machine: Host) -> None:
    machine.react = lambda _path, _value: None
    plan = tuning.plan(machine, {"transparent_hugepages": {"enabled": "madvise"}})
    assert [(c.option, c.before, c.after) for c in plan.changes[:1]] == [("transparent_hugepages.enabled", "always", "madvise")]
    words = refusal(lambda: tuning.plan(machine, {"transparent_hugepages": {"defrag": "madvise"}}))
    assert "this kernel has no /sys/kernel/mm/transparent_hugepage/defrag" in words


def test_nested_is_loaded_again_when_no_guest_runs(machine: Host) -> None:
    plan = tuning.plan(machine, {"nested": True})
    assert plan.steps[-1].sentence == "load kvm_amd again with nested=1"
    assert plan.facts["reboot_required"] is False


def test_nested_waits_for_a_reboot_while_guests_run_and_says_so_every_time(machine: Host) -> None:
    machine.set("/sys/module/kvm_amd/refcnt", 3)
    for _run in range(2):
        plan = apply(lambda: tuning.plan(machine, {"nested": True}))
        assert plan.facts["reboot_required"] is True
        assert plan.pending == ("nested",)
    machine.set("/sys/module/kvm_amd/parameters/nested", "1")
    assert tuning.plan(machine, {"nested": True}).facts["reboot_required"] is False


def test_nested_names_the_other_file_that_sets_it(machine: Host) -> None:
    machine.has({"/etc/modprobe.d/kvm.conf": "options kvm_amd avic=1 nested=0"})
    assert "/etc/modprobe.d/kvm.conf sets nested=0" in refusal(lambda: tuning.plan(machine, {"nested": True}))


def modprobe(machine: Host, builtin: tuple[str, ...] = (), missing: tuple[str, ...] = ()) -> None:
    """Let modprobe load a module, and know which are built in or not there."""

    def answer(argv: list[str]) -> Output:
        name = argv[-1]
        if name in missing:
            return Output(1, "", f"modprobe: FATAL: Module {name} not found.\n")
        if "--show-depends" in argv:
            return Output(0, f"builtin {name}\n" if name in builtin else f"insmod /lib/modules/{name}.ko\n", "")
        machine.has({f"/sys/module/{name.replace('-', '_')}/refcnt": 0})
        return Output(0, "", "")

    machine.answer = answer


def test_modules_are_loaded_now_and_at_every_boot_and_never_unloaded(machine: Host) -> None:
    modprobe(machine, builtin=("tun",))
    plan = apply(lambda: tuning.plan(machine, {"kernel_modules": ["kvm_amd", "vhost-net", "tun"]}))
    assert [(change.option, change.before, change.after) for change in plan.changes] == [
        ("persisted.kernel_modules", None, "kvm_amd vhost-net tun"), ("kernel_modules", None, "vhost-net"),
    ]  # fmt: skip
    assert [argv for argv in machine.commands if "--show-depends" not in argv] == [["modprobe", "vhost-net"]]
    assert tuning.read(machine, None)[0]["kernel_modules"] == ["kvm_amd", "vhost-net", "tun"]
    apply(lambda: tuning.plan(machine, {"kernel_modules": ["tun"]}))
    assert kernel_modules.read_persisted(machine) == ["tun"]
    assert machine.exists("/sys/module/vhost_net")
    apply(lambda: tuning.plan(machine, {"unset": ["kernel_modules"]}))
    assert not machine.exists(kernel_modules.PERSISTED)


def test_a_module_is_loaded_with_what_the_same_task_sets_for_it(host: Host) -> None:
    host.has({"/proc/cpuinfo": "flags: svm"})
    modprobe(host)
    plan = tuning.plan(host, {"kernel_modules": ["kvm_amd"], "nested": True})
    assert [step.sentence for step in plan.steps if "found.json" not in step.sentence] == [
        "write /etc/modprobe.d/anfitrion-kvm.conf", f"write {kernel_modules.PERSISTED}", "load module kvm_amd",
    ]  # fmt: skip


def test_a_module_that_this_kernel_has_not_is_refused(machine: Host, tree: Callable[[], dict[str, str]]) -> None:
    modprobe(machine, missing=("kvm_amdd",))
    before = tree()
    words = refusal(lambda: tuning.plan(machine, {"kernel_modules": ["kvm_amdd"], "numa_balancing": 0}))
    assert words == "kernel_modules: this kernel has no module kvm_amdd (modprobe: FATAL: Module kvm_amdd not found.); leave it out"
    assert tree() == before


BRIDGE = "/proc/sys/net/bridge/bridge-nf-call-"


@pytest.mark.row("S32")
def test_frames_between_guests_are_kept_out_of_the_packet_filter_before_and_after_the_module_is_loaded(machine: Host) -> None:
    assert "bridge_filter" not in tuning.read(machine, None)[0]
    plan = apply(lambda: tuning.plan(machine, {"bridge_filter": False}))
    assert [change.how for change in plan.changes] == ["next_boot", "next_boot"]
    assert tuning.read(machine, None)[0]["bridge_filter"] is False
    assert 'KERNEL=="br_netfilter"' in (machine.text(bridge_filter.RULE) or "")
    machine.has({f"{BRIDGE}iptables": 1, f"{BRIDGE}ip6tables": 1, f"{BRIDGE}arptables": 0})
    assert tuning.read(machine, None)[0]["bridge_filter"] is True
    plan = apply(lambda: tuning.plan(machine, {"bridge_filter": False}))
    assert [(change.option, change.after) for change in plan.changes] == [("bridge_filter.iptables", "0"), ("bridge_filter.ip6tables", "0")]
    plan = apply(lambda: tuning.plan(machine, {"unset": ["bridge_filter"]}))
    assert [(change.option, change.after) for change in plan.changes if change.how == "live"] == [
        ("bridge_filter.ip6tables", "1"), ("bridge_filter.iptables", "1"),
    ]  # fmt: skip
    assert not machine.exists(bridge_filter.RULE)
    assert not machine.exists(bridge_filter.PARAMETERS)


@pytest.mark.row("S32")
def test_who_wants_frames_filtered_is_named(machine: Host) -> None:
    machine.has({"/etc/sysctl.d/k8s.conf": "net.bridge.bridge-nf-call-ip6tables=1"})
    words = refusal(lambda: tuning.plan(machine, {"bridge_filter": False}))
    assert words.startswith("bridge_filter: /etc/sysctl.d/k8s.conf wants frames on bridges to go through the packet filter")


def test_planning_never_writes(machine: Host, tree: Callable[[], dict[str, str]]) -> None:
    before = tree()
    wanted = {"ksm": {"sleep_millisecs": 1}, **pages(3, 3), "numa_balancing": 0, "nested": True, "bridge_filter": False, "kernel_modules": ["tun"]}
    assert tuning.plan(machine, wanted).changed
    assert tree() == before


def test_what_is_read_can_be_applied_without_a_change_in_the_running_host(machine: Host) -> None:
    found = tuning.read(machine, None)[0]
    assert not [change for change in tuning.plan(machine, found).changes if change.how == "live"]


def test_a_write_that_does_not_come_back_ends_with_the_state_unknown(host: Host) -> None:
    import os  # noqa: PLC0415

    os.mkfifo(host.at("stuck"))  # a FIFO without a reader blocks its writer, as a driver may
    host.timeout = 0.2
    assert "did not come back" in refusal(lambda: host.write("/stuck", "1"))


def test_a_step_says_what_it_writes_where() -> None:
    assert Write("/sys/x", "1", "0").value == "1"
