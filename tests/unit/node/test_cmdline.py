"""The kernel's command line over every boot loader, each by its files: GRUB of Debian and SUSE, grubby, systemd-boot, ostree."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import bootloader, tuning
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Output
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import execute

from .conftest import Host, apply, refusal

pytestmark = pytest.mark.row("S20")

GRUB_CFG = "/boot/grub/grub.cfg"
IOMMU = {"kernel_arguments": [{"name": "iommu", "values": ["pt"]}]}


def menu(arguments: str, recovery: str) -> str:
    return (
        f"menuentry 'Debian' --class debian {{\n\tlinux\t/boot/vmlinuz-6.12 root=/dev/vda ro {arguments}\n}}\n"
        "submenu 'Advanced' {\n menuentry 'Debian, with 6.1 (recovery mode)' {\n"
        f"  linux /boot/vmlinuz-6.1 root=/dev/vda ro single {recovery}\n }}\n"
        " menuentry 'Memory test' {\n  linux16 /boot/memtest86+.bin\n }\n}\n"
    )


@pytest.fixture
def debian(host: Host) -> Host:
    """A host whose update-grub does what Debian's does, by the files of the host."""
    host.has({
        "/usr/sbin/update-grub": "", "/etc/default/grub": 'GRUB_CMDLINE_LINUX=""\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"',
        "/proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz-6.12 root=/dev/vda ro quiet", GRUB_CFG: menu("quiet", ""),
    })  # fmt: skip

    def generate(argv: list[str]) -> Output:
        if argv == ["update-grub"]:
            values = [bootloader.assigned(host.text(path) or "") for path in (bootloader.DEFAULTS, bootloader.DROP_IN)]
            both = " ".join(value.get("GRUB_CMDLINE_LINUX", "") for value in values)
            host.set(GRUB_CFG, menu(f"{both} {values[0].get('GRUB_CMDLINE_LINUX_DEFAULT', '')}", both))
        return Output(0, "", "")

    host.answer = generate
    return host


def words(host: Host) -> list[list[str]]:
    return list(bootloader.generated_entries(host).values())


def test_an_argument_is_in_every_generated_entry_and_waits_for_the_reboot(debian: Host) -> None:
    plan = apply(lambda: tuning.plan(debian, IOMMU))
    assert all("iommu=pt" in entry for entry in words(debian))
    assert len(words(debian)) == 2
    assert plan.pending == ("kernel_arguments[iommu]",)
    again = tuning.plan(debian, IOMMU)
    assert again.facts["reboot_required"] is True
    assert not again.changed
    debian.set("/proc/cmdline", "root=/dev/vda ro iommu=pt")
    assert tuning.plan(debian, IOMMU).facts["reboot_required"] is False


def test_a_value_that_only_looks_alike_is_not_taken_for_it(debian: Host) -> None:
    debian.set("/etc/default/grub", 'GRUB_CMDLINE_LINUX="intel_iommu=pt xiommu=pt"')
    debian.answer(["update-grub"])
    assert tuning.plan(debian, IOMMU).changed


def test_a_name_with_a_dash_is_the_one_with_an_underscore(debian: Host) -> None:
    apply(lambda: tuning.plan(debian, {"kernel_arguments": [{"name": "kvm-amd.nested", "values": ["1"]}]}))
    assert not tuning.plan(debian, {"kernel_arguments": [{"name": "kvm-amd.nested", "values": ["1"]}]}).changed
    assert bootloader.name_of("kvm-amd.nested=1") == bootloader.name_of("kvm_amd.nested")


def test_values_with_blanks_come_back_as_they_were_given(debian: Host) -> None:
    wanted = {"kernel_arguments": [{"name": "dyndbg", "values": ["file kvm.c +p"]}]}
    apply(lambda: tuning.plan(debian, wanted))
    assert 'dyndbg="file kvm.c +p"' in (debian.text(GRUB_CFG) or "")


def test_a_parameter_with_several_values_has_them_in_order(debian: Host) -> None:
    wanted = {"kernel_arguments": [{"name": "console", "values": ["tty0", "ttyS0"]}, {"name": "nosmt"}]}
    apply(lambda: tuning.plan(debian, wanted))
    assert [word for word in words(debian)[0] if "console" in word] == ["console=tty0", "console=ttyS0"]
    swapped = {"kernel_arguments": [{"name": "console", "values": ["ttyS0", "tty0"]}]}
    assert tuning.plan(debian, swapped).changed
    assert "nosmt" in words(debian)[1]


def test_what_is_absent_leaves_and_the_others_of_ours_stay(debian: Host) -> None:
    apply(lambda: tuning.plan(debian, {"kernel_arguments": [*IOMMU["kernel_arguments"], {"name": "nosmt"}]}))
    apply(lambda: tuning.plan(debian, {"kernel_arguments": [{"name": "nosmt", "state": "absent"}]}))
    assert [("iommu=pt" in entry, "nosmt" in entry, "root=/dev/vda" in entry) for entry in words(debian)] == [(True, False, True)] * 2


def test_given_back_the_files_are_as_they_were_found(debian: Host, tree: Callable[[], dict[str, str]]) -> None:
    before = tree()
    apply(lambda: tuning.plan(debian, IOMMU))
    apply(lambda: tuning.plan(debian, {"unset": ["kernel_arguments"]}))
    assert {name: " ".join(text.split()) for name, text in tree().items()} == {name: " ".join(text.split()) for name, text in before.items()}


def test_the_file_that_sets_another_value_is_named(debian: Host) -> None:
    debian.has({"/etc/default/grub.d/90-mine.cfg": 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX iommu=off"'})
    assert "kernel_arguments[iommu]: /etc/default/grub.d/90-mine.cfg sets iommu=off" in refusal(lambda: tuning.plan(debian, IOMMU))


def test_what_the_administrator_gives_to_ordinary_entries_is_not_given_twice(debian: Host) -> None:
    debian.set("/etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"')
    debian.answer(["update-grub"])
    assert not tuning.plan(debian, IOMMU).changed


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Output(1, "", "/etc/grub.d/10_linux: syntax error"), "update-grub: /etc/grub.d/10_linux: syntax error"),
        (Output(0, "", ""), "kernel_arguments[iommu]: the boot entry 'Debian' was generated without it"),
    ],
)
def test_a_boot_loader_that_fails_leaves_everything_as_it_was(
    debian: Host, tree: Callable[[], dict[str, str]], answer: Output, says: str
) -> None:
    debian.answer = lambda _argv: answer
    before = tree()
    assert says in refusal(lambda: execute(tuning.plan(debian, IOMMU)))
    assert tree() == before


def test_a_half_written_configuration_is_put_back(debian: Host, tree: Callable[[], dict[str, str]]) -> None:
    before = tree()

    def break_it(argv: list[str]) -> Output:
        debian.set(GRUB_CFG, "half a")
        debian.set(f"{GRUB_CFG}.new", "the other half")
        return Output(1, "", f"{argv[0]}: no space left on device")

    debian.answer = break_it
    assert "no space left" in refusal(lambda: execute(tuning.plan(debian, IOMMU)))
    assert tree() == before


def test_a_quote_that_does_not_close_is_told_before_anything_is_written(debian: Host) -> None:
    debian.set("/etc/default/grub", 'GRUB_CMDLINE_LINUX="quiet')
    assert "the quotes of GRUB_CMDLINE_LINUX do not close" in refusal(lambda: tuning.plan(debian, IOMMU))


@pytest.mark.parametrize("value", ["a;b", "$HOME", "`id`", 'a"b', "a\nb", "{x}"])
def test_what_a_shell_would_take_for_itself_is_refused(debian: Host, value: str) -> None:
    wanted = {"kernel_arguments": [{"name": "iommu", "values": [value]}]}
    assert "a character that a boot loader's shell takes" in refusal(lambda: tuning.plan(debian, wanted))


def test_a_host_without_a_known_boot_loader_says_so(host: Host) -> None:
    assert "no boot loader that is known here" in refusal(lambda: tuning.plan(host, IOMMU))


def test_suse_has_it_in_its_defaults(host: Host) -> None:
    cfg = "/boot/grub2/grub.cfg"
    defaults = 'GRUB_TIMEOUT=8\nGRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=off"'
    host.has({"/usr/sbin/grub2-mkconfig": "", "/etc/default/grub": defaults, cfg: menu("quiet iommu=off", "")})

    def generate(_argv: list[str]) -> Output:
        values = bootloader.assigned(host.text("/etc/default/grub") or "")
        both = values.get("GRUB_CMDLINE_LINUX", "")
        host.set(cfg, menu(f"{both} {values['GRUB_CMDLINE_LINUX_DEFAULT']}", both))
        return Output(0, "", "")

    host.answer = generate
    apply(lambda: tuning.plan(host, IOMMU))
    assert host.text("/etc/default/grub") == "GRUB_TIMEOUT=8\nGRUB_CMDLINE_LINUX_DEFAULT=quiet\nGRUB_CMDLINE_LINUX=iommu=pt\n"
    assert ["grub2-mkconfig", "-o", cfg] in host.commands


def test_grubby_changes_every_kernel(host: Host) -> None:
    host.has({"/usr/sbin/grubby": "", "/boot/loader/entries/a.conf": "title A", "/boot/loader/entries/b.conf": "title B"})
    kernels = {"/boot/vmlinuz-5.14": ["ro", "crashkernel=1G", "$tuned_params"], "/boot/vmlinuz-rescue": ["ro", "iommu=off"]}

    def grubby(argv: list[str]) -> Output:
        if argv[1] == "--info=ALL":
            return Output(0, "".join(f'index=0\nkernel="{k}"\nargs="{" ".join(v)}"\nroot="/dev/sda"\n' for k, v in kernels.items()), "")
        option, _equals, value = argv[2].partition("=")
        for name, have in kernels.items():
            if option == "--remove-args":
                kernels[name] = [word for word in have if word.partition("=")[0] not in value.split()]
            else:
                kernels[name] = [*have, *value.split()]
        return Output(0, "", "")

    host.answer = grubby
    plan = apply(lambda: tuning.plan(host, IOMMU))
    assert plan.changes[0].before is None
    assert kernels == {"/boot/vmlinuz-5.14": ["ro", "crashkernel=1G", "$tuned_params", "iommu=pt"], "/boot/vmlinuz-rescue": ["ro", "iommu=pt"]}


def test_systemd_boot_keeps_it_in_etc_and_makes_every_entry_again(host: Host) -> None:
    host.has({
        "/usr/bin/bootctl": "", "/boot/loader/entries/x.conf": "title X\noptions root=UUID=1 rw", "/usr/lib/modules/6.12/vmlinuz": "",
    })  # fmt: skip

    def install(argv: list[str]) -> Output:
        assert argv == ["kernel-install", "add", "6.12", "/usr/lib/modules/6.12/vmlinuz"]
        host.set("/boot/loader/entries/x.conf", f"title X\noptions {host.read('/etc/kernel/cmdline')}")
        return Output(0, "", "")

    host.answer = install
    apply(lambda: tuning.plan(host, IOMMU))
    assert host.read("/etc/kernel/cmdline") == "root=UUID=1 rw iommu=pt"


def test_ostree_changes_its_next_deployment(host: Host) -> None:
    host.has({"/run/ostree-booted": ""})
    kargs = ["rw", "iommu=off"]

    def ostree(argv: list[str]) -> Output:
        for option in argv[2:]:
            verb, _equals, word = option.partition("=")
            kargs.remove(word) if verb == "--delete" else kargs.append(word)
        return Output(0, " ".join(kargs) + "\n", "")

    host.answer = ostree
    plan = apply(lambda: tuning.plan(host, IOMMU))
    assert kargs == ["rw", "iommu=pt"]
    assert plan.changes[0].before == "iommu=off"
    for step in reversed(plan.steps):
        assert step.undo
        step.undo()
    assert kargs == ["rw", "iommu=off"]


PLAIN = st.text("abcdefgh=_-.,:0123456789 ", min_size=1).map(lambda text: " ".join(text.split()).strip("= ")).filter(bool)


@given(st.lists(PLAIN))
def test_words_come_back_from_a_line(parts: list[str]) -> None:
    assert bootloader.words(bootloader.line(parts)) == parts


def test_isolated_cpus_leave_each_node_a_core(debian: Host) -> None:
    files: dict[str, Any] = {"/sys/devices/system/cpu/present": "0-7"}
    for node, cpus in ((0, "0-3"), (1, "4-7")):
        files[f"/sys/devices/system/node/node{node}/cpulist"] = cpus
    for cpu in range(8):
        files[f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}"
    debian.has(files)
    apply(lambda: tuning.plan(debian, {"cpu_isolation": {"cpus": "2-3,6-7", "nohz_full": True}}))
    assert {"isolcpus=managed_irq,domain,2-3,6-7", "nohz_full=2-3,6-7", "rcu_nocbs=2-3,6-7"} <= set(words(debian)[0])
    for cpus, says in (("2-8", "no CPU 8; it has 0-7"), ("0", "CPU 0 starts the host"), ("2-3,5-7", "node 1 would keep no core")):
        assert says in refusal(lambda cpus=cpus: tuning.plan(debian, {"cpu_isolation": {"cpus": cpus}}))  # type: ignore[misc]
    apply(lambda: tuning.plan(debian, {"cpu_isolation": {"cpus": ""}}))
    assert not debian.exists(bootloader.DROP_IN)


def test_pages_of_1_gib_are_set_aside_by_the_kernel_on_their_nodes(debian: Host) -> None:
    files: dict[str, Any] = {}
    for node in (0, 1):
        files[f"/sys/devices/system/node/node{node}/meminfo"] = "Node 0 MemTotal: 8000000 kB\nNode 0 MemFree: 6000000 kB"
        for size in (2048, 1048576):
            files[f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size}kB/nr_hugepages"] = 0
            files[f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size}kB/surplus_hugepages"] = 0
    debian.has({**files, "/proc/sys/vm/compact_memory": ""})
    full = "/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages"
    debian.then = lambda path, _value: debian.set(path, 0) if path == full else None
    wanted = {"hugepages": [{"size": "1GiB", "nodes": [{"node": 0, "count": 1}, {"node": 1, "count": 2}]}]}
    execute(tuning.plan(debian, wanted))
    again = tuning.plan(debian, wanted)
    assert not again.changed
    assert again.facts["reboot_reasons"][0].startswith("hugepages[1GiB].nodes[1].count: the running kernel has 0")
    assert words(debian)[0][-3:-1] == ["hugepagesz=1G", "hugepages=0:1,1:2"]
    assert "Options=pagesize=1G" in (debian.text("/etc/systemd/system/dev-hugepages1G.mount") or "")
    apply(lambda: tuning.plan(debian, {"hugepages": [{"size": "1GiB", "state": "absent"}]}))
    assert not debian.exists(bootloader.DROP_IN)
    assert not debian.exists("/etc/systemd/system/dev-hugepages1G.mount")
