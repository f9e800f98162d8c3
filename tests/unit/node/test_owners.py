"""One owner for each knob: a second writer is named; and what is given back is as it was found."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import found, rivals, tuning

from .conftest import Host, apply, refusal

KSM = "/sys/kernel/mm/ksm"
THP = "/sys/kernel/mm/transparent_hugepage"
NODE = "/sys/devices/system/node/node0"


@pytest.fixture
def machine(host: Host) -> Host:
    """A host with one NUMA node whose kernel keeps what it is told."""
    knobs = {"run": 0, "pages_to_scan": 100, "sleep_millisecs": 20, "pages_shared": 0, "pages_sharing": 0}
    files: dict[str, Any] = {f"{KSM}/{name}": value for name, value in knobs.items()}
    files.update({f"{NODE}/meminfo": "Node 0 MemTotal: 8000000 kB\nNode 0 MemFree: 6000000 kB"})
    files.update({"/proc/meminfo": "MemTotal: 8000000 kB\nSwapTotal: 9 kB"})
    files.update({f"{NODE}/hugepages/hugepages-2048kB/{name}": 0 for name in ("nr_hugepages", "surplus_hugepages")})
    files.update({"/proc/sys/vm/swappiness": 60, "/proc/sys/vm/overcommit_memory": 0, "/proc/sys/kernel/numa_balancing": 1})
    files.update({f"{THP}/enabled": "always [madvise] never", "/sys/module/kvm_intel/parameters/nested": "Y", "/sys/module/kvm_intel/refcnt": 0})
    files.update({"/proc/sys/vm/compact_memory": "", "/proc/cmdline": "quiet"})
    host.has(files)
    # the kernel shows all the words of such a file, and answers modprobe
    host.then = lambda path, value: host.set(path, "always madvise never".replace(value, f"[{value}]")) if path.startswith(THP) else None
    host.answer = lambda argv: _modprobe(host, argv)
    return host


def _modprobe(host: Host, argv: list[str]) -> Any:
    from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Output  # noqa: PLC0415

    if argv[0] == "modprobe" and argv[-1].startswith("nested="):
        host.set("/sys/module/kvm_intel/parameters/nested", "NY"[int(argv[-1][-1])])
    return Output(0, "", "")


def with_tuned(host: Host, **files: str) -> Host:
    """Have tuned apply the profile mine, which includes the profile base."""
    return host.has({
        "/etc/systemd/system/multi-user.target.wants/tuned.service": "->/usr/lib/systemd/system/tuned.service",
        "/etc/tuned/active_profile": "mine", **{f"/usr/lib/tuned/{name}/tuned.conf": text for name, text in files.items()},
    })  # fmt: skip


PAGES = {"hugepages": [{"size": "2MiB", "nodes": [{"node": 0, "count": 8}]}]}


@pytest.mark.row("S03")
@pytest.mark.parametrize(
    ("files", "wanted", "says"),
    [
        ({"/etc/tmpfiles.d/ksm.conf": f"w {KSM}/run - - - - 0"}, {"ksm": {"enabled": True}}, "ksm.run: /etc/tmpfiles.d/ksm.conf writes 0"),
        ({"/etc/tmpfiles.d/thp.conf": f"w! {THP}/enabled - - - - never"}, {"transparent_hugepages": {"enabled": "always"}},
         "transparent_hugepages.enabled: /etc/tmpfiles.d/thp.conf writes never"),
        ({"/etc/sysctl.d/99-z.conf": "vm.swappiness=1"}, {"vm": {"swappiness": 10}},
         "vm.swappiness: /etc/sysctl.d/99-z.conf sets vm.swappiness to 1"),
        ({"/proc/cmdline": "quiet kvm_intel.nested=0"}, {"nested": True}, "nested: the kernel command line sets kvm_intel.nested=0"),
        ({"/usr/lib/modprobe.d/x.conf": "options kvm_intel nested=0"}, {"nested": True}, "/usr/lib/modprobe.d/x.conf sets nested=0"),
        ({"/etc/sysctl.conf": "vm.nr_hugepages=9"}, PAGES, "hugepages: /etc/sysctl.conf sets vm.nr_hugepages=9"),
        ({"/usr/lib/systemd/system/ksmtuned.service": "[Unit]"}, {"ksm": {"enabled": True}}, "ksm.enabled: the ksmtuned service rewrites it"),
    ],
)  # fmt: skip
def test_another_file_that_writes_the_knob_is_named(machine: Host, files: dict[str, Any], wanted: dict[str, Any], says: str) -> None:
    for name, text in files.items():
        machine.set(name, text) if machine.exists(name) else machine.has({name: text})
    assert says in refusal(lambda: tuning.plan(machine, wanted))
    assert not machine.written


@pytest.mark.parametrize(
    ("profile", "wanted", "says"),
    [
        ("[sysfs]\n/sys/kernel/mm/ksm/run=0", {"ksm": {"enabled": True}}, "ksm.run: the tuned profile mine sets /sys/kernel/mm/ksm/run to 0"),
        ("[vm]\ntransparent_hugepages=never", {"transparent_hugepages": {"enabled": "always"}},
         "transparent_hugepages.enabled: the tuned profile mine sets transparent_hugepages to never"),
        ("[sysctl]\nvm.nr_hugepages = 64", PAGES, "hugepages: /usr/lib/tuned/base/tuned.conf sets vm.nr_hugepages=64"),
        ("[bootloader]\ncmdline_x=+isolcpus=2", {"cpu_isolation": {"cpus": "1"}}, "cpu_isolation: the tuned profile mine sets cmdline_x"),
    ],
)  # fmt: skip
def test_the_tuned_profile_that_sets_the_knob_is_named(machine: Host, profile: str, wanted: dict[str, Any], says: str) -> None:
    machine.has({"/sys/devices/system/cpu/present": "0-1", f"{NODE}/cpulist": "0-1"})
    with_tuned(machine, mine="[main]\ninclude=base", base=profile)
    assert says in refusal(lambda: tuning.plan(machine, wanted))


def test_tuned_lets_sysctl_d_win_unless_it_is_told_not_to(machine: Host) -> None:
    with_tuned(machine, mine="[sysctl]\nvm.swappiness = 10")
    apply(lambda: tuning.plan(machine, {"vm": {"swappiness": 20}}))
    machine.has({"/etc/tuned/tuned-main.conf": "reapply_sysctl = 0"})
    words = refusal(lambda: tuning.plan(machine, {"vm": {"swappiness": 20}}))
    assert "vm.swappiness: /usr/lib/tuned/mine/tuned.conf sets vm.swappiness to 10" in words


def test_a_profile_that_tuned_does_not_start_with_is_no_second_writer(machine: Host) -> None:
    with_tuned(machine, mine="[vm]\ntransparent_hugepages=never")
    machine.remove("/etc/systemd/system/multi-user.target.wants/tuned.service")
    assert rivals.profile(machine) is None


def test_ksmtuned_owns_its_three_knobs_when_it_is_to_run(machine: Host) -> None:
    machine.has({"/usr/lib/systemd/system/ksmtuned.service": "[Unit]", "/etc/systemd/system/ksmtuned.service": "->/dev/null"})
    assert "ksm.pages_to_scan: the ksmtuned service rewrites it" in refusal(
        lambda: tuning.plan(machine, {"ksm": {"ksmtuned": "running", "pages_to_scan": 5}})
    )
    plan = tuning.plan(machine, {"ksm": {"ksmtuned": "running"}})
    assert "unmask and start ksmtuned" in [step.sentence for step in plan.steps]


EVERYTHING: dict[str, Any] = {
    "ksm": {"enabled": True, "pages_to_scan": 500}, "numa_balancing": 0, "transparent_hugepages": {"enabled": "never"}, **PAGES,
    "vm": {"swappiness": 10, "overcommit_memory": 1}, "nested": False,
}  # fmt: skip


@pytest.mark.row("S03")
def test_what_is_given_back_is_as_it_was_found_also_after_changes(machine: Host, tree: Callable[[], dict[str, str]]) -> None:
    before = tree()
    apply(lambda: tuning.plan(machine, EVERYTHING))
    apply(lambda: tuning.plan(machine, {"ksm": {"pages_to_scan": 900, "sleep_millisecs": 5}, "vm": {"swappiness": 1}}))
    assert found.of(machine, "ksm")["pages_to_scan"] == "100"
    apply(lambda: tuning.plan(machine, {"unset": ["vm"]}))
    assert found.of(machine, "vm") == {}
    assert machine.number("/proc/sys/vm/swappiness") == 60
    apply(lambda: tuning.plan(machine, {"unset": list(EVERYTHING)}))
    del before["proc/sys/vm/compact_memory"]
    assert {name: text.strip() for name, text in tree().items() if name != "proc/sys/vm/compact_memory"} == {n: t.strip() for n, t in before.items()}


def test_what_was_never_set_is_given_back_without_a_change(machine: Host) -> None:
    assert not tuning.plan(machine, {"unset": ["ksm", "vm", "hugepages", "nested", "numa_balancing", "transparent_hugepages"]}).changed


def test_a_knob_cannot_be_set_and_given_back_at_once(machine: Host) -> None:
    assert "unset: vm is both given and to be given back" in refusal(lambda: tuning.plan(machine, {"vm": {"swappiness": 1}, "unset": ["vm"]}))


def test_a_parameter_that_this_kernel_has_not_is_named(machine: Host) -> None:
    assert "vm.zone_reclaim_mode: this kernel has no" in refusal(lambda: tuning.plan(machine, {"vm": {"zone_reclaim_mode": 0}}))


def test_a_record_that_is_no_json_is_told_and_left(machine: Host) -> None:
    machine.has({found.FILE: "{"})
    assert "is no JSON any more" in refusal(lambda: tuning.plan(machine, {"vm": {"swappiness": 1}}))
