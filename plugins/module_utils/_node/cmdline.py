# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's command line: its words, who claims which of them, and what it takes that the next boot has them.

Words are compared without their quotes, by name; names are equal whether written with - or _, as the kernel has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import bootloader
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import NEXT_BOOT, Part
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

RUNNING = "/proc/cmdline"
RECOVERY = {"single", "recovery", "rescue", "systemd.unit=rescue.target"}


@dataclass(frozen=True)
class Claim:
    """The words that the command line has for some names, all of them and in this order; none: it has no such name.

    option: what states it. names: those that only mean something together, as hugepagesz and hugepages, are one claim.
    """

    option: str
    names: tuple[str, ...]
    words: tuple[str, ...]

    def part_of(self, words: Iterable[str]) -> tuple[str, ...]:
        """Return the words of a command line that this claim speaks of."""
        names = {bootloader.name_of(name) for name in self.names}
        return tuple(word for word in words if bootloader.name_of(word) in names)


def part(root: Root, claims: list[Claim]) -> Part:
    """Return what it takes that every entry of the boot loader has the claimed words; the running kernel keeps its own.

    Raises KvmError where there is no boot loader that we know, or somebody else gives one of the names another value.
    """
    if not claims:
        return Part()
    running = bootloader.words(root.read(RUNNING) or "")
    late = [claim for claim in claims if claim.part_of(running) != claim.words]
    pending = tuple(claim.option for claim in late)
    reasons = tuple(f"{claim.option}: the running kernel was started {_with(claim.part_of(running))}" for claim in late)
    if bootloader.known(root) is None and not any(claim.words for claim in claims):
        return Part(pending=pending, reboot_reasons=reasons)
    loader = bootloader.of(root)
    entries = loader.entries(root)
    if not entries:
        raise KvmError(f"{claims[0].option}: {loader.name} has no entry that starts a kernel; generate its configuration first")
    differing = [claim for claim in claims if _lacking(root, loader, entries, claim)]
    if not differing:
        return Part(pending=pending, reboot_reasons=reasons)
    for claim in differing:
        _refuse_foreign(root, loader, claim)
    changes = tuple(
        Change(claim.option, _shown(next(iter(_lacking(root, loader, entries, claim).values()))), _shown(claim.words), NEXT_BOOT)
        for claim in differing
    )
    return Part(changes, (_step(root, loader, claims, differing),), pending, reboot_reasons=reasons)


def held(root: Root, claims: list[Claim]) -> bool:
    """Tell whether the next boot has all that is claimed."""
    loader = bootloader.known(root)
    entries = loader.entries(root) if loader else {}
    return loader is not None and bool(entries) and not any(_lacking(root, loader, entries, claim) for claim in claims)


def _with(words: tuple[str, ...]) -> str:
    return f"with {' '.join(words)}" if words else "without it"


def _shown(words: tuple[str, ...]) -> str | None:
    return " ".join(words) or None


def _refuse_foreign(root: Root, loader: bootloader.Loader, claim: Claim) -> None:
    for path, words in loader.foreign(root).items():
        found = claim.part_of(words)
        if found and found != claim.words:
            raise KvmError(f"{claim.option}: {path} sets {' '.join(found)}; remove that there, one file is to own it")


def _step(root: Root, loader: bootloader.Loader, claims: list[Claim], differing: list[Claim]) -> Step:
    names = tuple(name for claim in differing for name in claim.names)
    foreign = [word for words in loader.foreign(root).values() for word in words]
    words = tuple(word for claim in differing if claim.part_of(foreign) != claim.words for word in claim.words)
    before = loader.save(root)

    def write() -> None:
        try:
            loader.change(root, names, words)
            _require(root, loader, claims)
        except KvmError:
            before.restore(root)
            raise

    told = ", ".join(f"{claim.option} {_shown(claim.words) or 'absent'}" for claim in differing)
    return Step(f"put {told} on the kernel command line of {loader.name}", write, partial(before.restore, root))


def _lacking(root: Root, loader: bootloader.Loader, entries: dict[str, list[str]], claim: Claim) -> dict[str, tuple[str, ...]]:
    """Return the entries that have not what is claimed, and what they have.

    What the administrator's own file gives to ordinary entries only (GRUB_CMDLINE_LINUX_DEFAULT) recovery entries need not have.
    """
    theirs = any(claim.part_of(words) == claim.words != () for words in loader.foreign(root).values())
    found = {title: claim.part_of(words) for title, words in entries.items() if not (theirs and RECOVERY & set(words))}
    return {title: words for title, words in found.items() if words != claim.words}


def _require(root: Root, loader: bootloader.Loader, claims: list[Claim]) -> None:
    """Raise KvmError unless every entry has what is claimed: what a generator was told is not yet what it wrote."""
    entries = loader.entries(root)
    if not entries:
        raise KvmError(f"{loader.name} was left without an entry that starts a kernel")
    for claim in claims:
        for title, words in _lacking(root, loader, entries, claim).items():
            raise KvmError(f"{claim.option}: the boot entry {title!r} was generated {_with(words)}")


def owned(root: Root) -> list[str]:
    """Return the words that we put on the command line, for boot loaders that keep ours apart; else none."""
    return bootloader.words(bootloader.assigned(root.text(bootloader.DROP_IN) or "").get("GRUB_CMDLINE_LINUX", ""))


def read(root: Root) -> dict[str, list[str]]:
    """Return the running words, and those of each entry of the boot loader where there is one that we know."""
    found = {"running": bootloader.words(root.read(RUNNING) or "")}
    loader = bootloader.known(root)
    return {**found, **({} if loader is None else {f"next boot: {k}": v for k, v in loader.entries(root).items()})}


def claim_of(argument: dict[str, object]) -> Claim:
    """Return the claim of one item of kernel_arguments."""
    name = str(argument["name"])
    values = argument.get("values")
    words: tuple[str, ...] = ()
    if argument.get("state") != "absent":
        words = tuple(f"{name}={value}" for value in values) if isinstance(values, list) and values else (name,)
    for word in words:
        if re.search(r"[\"'`$\\;&|<>(){}\x00-\x1f]", word):
            raise KvmError(f"kernel_arguments[{name}]: a character that a boot loader's shell takes for itself; write it without")
    return Claim(f"kernel_arguments[{name}]", (name,), words)
