# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot loaders: where each keeps the kernel's command line, and how it is changed. Found by what the host has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Argv, Root

DEFAULTS = "/etc/default/grub"
DROP_INS = "/etc/default/grub.d"
DROP_IN = f"{DROP_INS}/60-anfitrion.cfg"
GENERATED = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
ENTRIES = ("/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries")
KERNEL_CMDLINE = "/etc/kernel/cmdline"
VARIABLES = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT")
GENERATE_S = 300.0  # os-prober may look at many disks


def words(text: str) -> list[str]:
    """Return the words of a command line as the kernel splits them: blanks, but not within double quotes."""
    found = re.findall(r'(?:[^\s"]|"[^"]*(?:"|$))+', text)
    return [word.replace('"', "") for word in found]


def line(parts: list[str]) -> str:
    """Return words as a command line; a value with blanks is quoted."""
    return " ".join(re.sub(r"^([^=\s]*=)?(.*\s.*)$", r'\1"\2"', part) for part in parts)


def name_of(word: str) -> str:
    return word.partition("=")[0].replace("-", "_")


def replaced(parts: list[str], names: tuple[str, ...], new: tuple[str, ...]) -> list[str]:
    """Return the words with those of some names replaced; all others stay, in their order."""
    gone = {name_of(name) for name in names}
    return [word for word in parts if name_of(word) not in gone] + list(new)


@dataclass(frozen=True)
class Saved:
    """Files as they were (path -> text, None: not there), and the command that makes the rest of it again."""

    files: Mapping[str, str | None]
    after: Callable[[Root], None] = field(default=lambda _root: None)

    def restore(self, root: Root) -> None:
        """Put the files back. Raises KvmError when the boot loader then still has not what it had."""
        for path, text in self.files.items():
            if text is None:
                root.remove(path)
            elif root.text(path) != text:
                root.place(path, text, root.mode(path) or 0o644)
        self.after(root)


@dataclass(frozen=True)
class Loader:
    """One boot loader.

    entries: words of every entry that starts a kernel, by its title. foreign: words that a file which is not ours to
    edit sets, by path. change: (names, words) takes the names out of what is ours to edit and puts the words in.
    save: what it takes to go back.
    """

    name: str
    entries: Callable[[Root], dict[str, list[str]]]
    change: Callable[[Root, tuple[str, ...], tuple[str, ...]], None]
    save: Callable[[Root], Saved]
    foreign: Callable[[Root], dict[str, list[str]]] = lambda _root: {}


def of(root: Root) -> Loader:
    """Return the boot loader of this host. Raises KvmError if it is none that we know."""
    loader = known(root)
    if loader is None:
        raise KvmError("kernel_arguments: this host has no boot loader that is known here (GRUB, grubby, systemd-boot, ostree)")
    return loader


def known(root: Root) -> Loader | None:
    if root.exists("/run/ostree-booted"):
        return OSTREE
    if has(root, "grubby") and any(root.list(directory) for directory in ENTRIES):
        return GRUBBY
    if root.exists(DEFAULTS) and has(root, "update-grub"):
        return DEBIAN
    if root.exists(DEFAULTS) and has(root, "grub2-mkconfig"):
        return SUSE
    if has(root, "bootctl") and any(root.list(directory) for directory in ENTRIES):
        return SYSTEMD_BOOT
    return None


def has(root: Root, command: str) -> bool:
    return any(root.exists(f"/{place}/{command}") for place in ("usr/sbin", "usr/bin", "sbin", "bin"))


def run(root: Root, argv: Argv) -> None:
    """Run a generator; it may take its time."""
    root.must_run(argv, timeout=GENERATE_S)


# GRUB: a configuration that is generated


def assigned(text: str) -> dict[str, str]:
    """Return what a file of shell assignments gives each variable; what it adds to itself is left out."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"^\s*(\w+)=(.*)$", text, re.MULTILINE):
        try:
            text_of_it = " ".join(shlex.split(value, comments=True))
        except ValueError:
            raise KvmError(f"{DEFAULTS}: the quotes of {name} do not close; nothing was changed") from None
        found[name] = re.sub(rf"\$\{{?{name}\}}?\s*", "", text_of_it)
    return found


def generated_entries(root: Root) -> dict[str, list[str]]:
    """Return the words of each menu entry of grub.cfg that starts a Linux kernel."""
    path = next((path for path in GENERATED if root.exists(path)), "")
    return menu_entries(root.text(path) or "") if path else {}


def menu_entries(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    title = "?"
    for one in text.splitlines():
        head = re.match(r"\s*menuentry\s+(['\"])(.*?)\1", one)
        title = head[2] if head else title
        kernel = re.match(r"\s*linux(?:16|efi)?\s+(\S+)\s*(.*)$", one)
        if kernel and "memtest" not in kernel[1]:
            name = title if title not in found else f"{title} ({len(found)})"
            found[name] = words(kernel[2])
    return found


def _settings(root: Root, but: str | None = None) -> dict[str, list[str]]:
    """Return the words that each file of GRUB's defaults sets."""
    paths = [DEFAULTS, *(f"{DROP_INS}/{file}" for file in root.list(DROP_INS) if file.endswith(".cfg"))]
    found = {}
    for path in paths:
        values = assigned(root.text(path) or "") if path != but else {}
        found[path] = [word for name in VARIABLES for word in words(values.get(name, ""))]
    return {path: parts for path, parts in found.items() if parts}


def _saved_grub(*files: str) -> Callable[[Root], Saved]:
    def save(root: Root) -> Saved:
        generated = [path for path in GENERATED if root.exists(path)]
        drafts = [f"{path}.new" for path in generated]  # what a generator that fails leaves behind
        return Saved({path: root.text(path) for path in (*files, *generated, *drafts)})

    return save


def _change_drop_in(root: Root, names: tuple[str, ...], new: tuple[str, ...]) -> None:
    parts = replaced(words(assigned(root.text(DROP_IN) or "").get("GRUB_CMDLINE_LINUX", "")), names, new)
    if parts:
        root.place(DROP_IN, f'{HEADER}GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX "{shlex.quote(line(parts))}\n')
    else:
        root.remove(DROP_IN)
    run(root, ["update-grub"])


DEBIAN = Loader(
    "GRUB", generated_entries, _change_drop_in, _saved_grub(DROP_IN), lambda root: _settings(root, but=DROP_IN)
)  # fmt: skip


def _change_defaults(root: Root, names: tuple[str, ...], new: tuple[str, ...]) -> None:
    text = root.text(DEFAULTS) or ""
    for variable in VARIABLES:
        old = words(assigned(text).get(variable, ""))
        parts = replaced(old, names, new if variable == VARIABLES[0] else ())
        if parts != old:
            value = f"{variable}={shlex.quote(line(parts))}"
            text, count = re.subn(rf"^\s*{variable}=.*$", lambda _match, to=value: to, text, flags=re.MULTILINE)  # type: ignore[misc]
            text = text if count else f"{text.rstrip()}\n{value}\n"
    root.place(DEFAULTS, text, root.mode(DEFAULTS) or 0o644)
    run(root, ["grub2-mkconfig", "-o", GENERATED[1]])


SUSE = Loader("GRUB", generated_entries, _change_defaults, _saved_grub(DEFAULTS))


# Entries of the Boot Loader Specification, one file each


def bls_files(root: Root) -> list[str]:
    return [f"{place}/{file}" for place in ENTRIES for file in root.list(place) if file.endswith(".conf")]


def bls_entries(root: Root) -> dict[str, list[str]]:
    """Return the words of every entry file; a variable such as $tuned_params stays a word."""
    found = {}
    for path in bls_files(root):
        fields = re.findall(r"^\s*options\s+(.*)$", root.text(path) or "", re.MULTILINE)
        found[path.rsplit("/", 1)[-1]] = [word for value in fields for word in words(value)]
    return found


def _grubby_entries(root: Root) -> dict[str, list[str]]:
    found, title = {}, "?"
    for one in root.must_run(["grubby", "--info=ALL"]).splitlines():
        key, _equals, value = one.partition("=")
        title = value.strip('"') if key == "kernel" else title
        if key == "args":
            found[title] = words(value.strip()[1:-1] if value.startswith('"') else value)
    return found


def _change_grubby(root: Root, names: tuple[str, ...], new: tuple[str, ...]) -> None:
    run(root, ["grubby", "--update-kernel=ALL", f"--remove-args={' '.join(names)}"])
    if new:
        run(root, ["grubby", "--update-kernel=ALL", f"--args={line(list(new))}"])


def _saved_bls(root: Root) -> Saved:
    return Saved({path: root.text(path) for path in (*bls_files(root), DEFAULTS, KERNEL_CMDLINE)})


GRUBBY = Loader("grubby", _grubby_entries, _change_grubby, _saved_bls)


def _change_kernel_install(root: Root, names: tuple[str, ...], new: tuple[str, ...]) -> None:
    base = root.text(KERNEL_CMDLINE)
    if base is None:  # kernel-install would take /proc/cmdline, with what was given by hand at this boot
        base = line(next(iter(bls_entries(root).values())))
    root.place(KERNEL_CMDLINE, f"{line(replaced(words(base), names, new))}\n")
    for release in root.list("/usr/lib/modules"):
        image = f"/usr/lib/modules/{release}/vmlinuz"
        image = image if root.exists(image) else f"/boot/vmlinuz-{release}"
        if root.exists(image):
            run(root, ["kernel-install", "add", release, image])


SYSTEMD_BOOT = Loader("systemd-boot", bls_entries, _change_kernel_install, _saved_bls)


# ostree: a deployment of its own for every change


def _ostree_entries(root: Root) -> dict[str, list[str]]:
    return {"the next deployment": words(root.must_run(["rpm-ostree", "kargs"]).strip())}


def _ostree_set(root: Root, old: list[str], new: list[str]) -> None:
    gone, more = [w for w in old if w not in new], [w for w in new if w not in old]
    if gone or more:
        run(root, ["rpm-ostree", "kargs", *(f"--delete={w}" for w in gone), *(f"--append={w}" for w in more)])


def _change_ostree(root: Root, names: tuple[str, ...], new: tuple[str, ...]) -> None:
    old = _ostree_entries(root)["the next deployment"]
    _ostree_set(root, old, replaced(old, names, new))


def _saved_ostree(root: Root) -> Saved:
    before = _ostree_entries(root)["the next deployment"]
    return Saved({}, lambda host: _ostree_set(host, _ostree_entries(host)["the next deployment"], before))


OSTREE = Loader("rpm-ostree", _ostree_entries, _change_ostree, _saved_ostree)
