# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may import whom, how much a module takes along, and how short it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.ring(1)

PLUGINS = Path(__file__).parents[2] / "plugins"
UTILS = PLUGINS / "module_utils"
PACKAGE = "ansible_collections.anfitrion.kvm.plugins.module_utils"
FILES = {path.relative_to(UTILS).with_suffix("").as_posix(): path for path in sorted(UTILS.rglob("*.py"))}
MODULES = {path.stem: path for path in sorted((PLUGINS / "modules").glob("*.py"))}
MOST_SOURCE = 182_000  # bytes; each KB costs every task a third of a millisecond (design.md §2)
# A guest has every way in which it takes a change while it runs, and its storage; and of what it can be made of, libvirt's domain
# format, 98 % are rows: some 75 KB of tables, which cost a task about 10 ms once.
# kvm_tuning knows every boot loader and every second writer of a knob. A device has its knobs in /sys, its next boot and
# its guests in libvirt.
MOST_SOURCE_OF = {
    "kvm_domain": 423_000, "kvm_domain_info": 423_000, "kvm_tuning": 212_000, "kvm_tuning_info": 212_000,
    "kvm_hostdev": 218_000, "kvm_hostdev_info": 218_000,
    # A pool is of a dozen types, a volume of many formats.
    "kvm_pool": 212_000, "kvm_pool_info": 212_000, "kvm_volume": 233_000, "kvm_volume_info": 233_000,
    "kvm_network": 212_000, "kvm_network_info": 212_000,
    # What stops a packet may be a rule of nftables, of both kinds of iptables or of ebtables.
    "kvm_path_info": 212_000,
    "kvm_host_info": 305_000, "kvm_backup": 226_000, "kvm_backup_info": 226_000,
}  # fmt: skip
MOST_LINES = 30

# What is pure, lowest first: a file may import from its own line and those above it.
LAYERS = (
    ("_once",),
    ("_errors",),
    ("_codecs", "_xml"),
    ("_fields",),
    ("_options",),
    ("_tables",),
    ("_plan",),
    ("_run",),
    ("_node",),
    ("_libvirt",),
)


def imports(path: Path) -> set[str]:
    """Return the full names of everything that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def own(path: Path) -> set[str]:
    """Return which files of ours a file imports."""
    names = [name[len(PACKAGE) + 1 :].replace(".", "/") for name in imports(path) if name.startswith(f"{PACKAGE}.")]
    return {name if name in FILES else name.rpartition("/")[0] for name in names} & set(FILES)


def layer(name: str) -> int:
    return next(place for place, group in enumerate(LAYERS) if name.split("/", maxsplit=1)[0] in group)


def package_of(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def closure(path: Path) -> set[str]:
    """Return every file of ours that a file takes along."""
    found: set[str] = set()
    waiting = own(path)
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= own(FILES[name]) - found
    return found


every_file = pytest.mark.parametrize("name", FILES)
every_module = pytest.mark.parametrize("name", MODULES)


@every_file
def test_only_the_xml_file_imports_lxml(name: str) -> None:
    assert ("lxml" in map(package_of, imports(FILES[name]))) == (name == "_xml")


@every_file
def test_only_the_libvirt_files_import_libvirt(name: str) -> None:
    assert name.startswith("_libvirt/") or not {"libvirt", "libvirt_qemu"} & set(map(package_of, imports(FILES[name])))


@every_file
def test_only_the_life_cycle_imports_ansible_module(name: str) -> None:
    ansible = {one for one in imports(FILES[name]) if package_of(one) == "ansible"}
    assert name == "_run" or not {one for one in ansible if one.endswith("AnsibleModule")}
    assert name.startswith(("_run", "_node/", "_libvirt/")) or not ansible


@every_file
def test_nothing_is_imported_from_above(name: str) -> None:
    assert all(layer(other) <= layer(name) for other in own(FILES[name])), own(FILES[name])


@every_file
def test_nothing_of_the_controller_is_imported(name: str) -> None:
    assert not {one for one in imports(FILES[name]) if "plugin_utils" in one or one.startswith(("yaml", "ansible.plugins"))}


@every_module
def test_what_a_module_takes_along_is_small(name: str) -> None:
    files = [MODULES[name], *(FILES[other] for other in closure(MODULES[name]))]
    assert sum(path.stat().st_size for path in files) < MOST_SOURCE_OF.get(name, MOST_SOURCE)


@every_module
def test_a_module_is_a_contents_page(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    prose = [node for node in tree.body if isinstance(node, ast.Assign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    lines = {child.lineno for node in tree.body if node not in prose for child in ast.walk(node) if hasattr(child, "lineno")}
    assert len(lines) <= MOST_LINES
