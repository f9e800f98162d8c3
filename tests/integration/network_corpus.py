"""Every network XML of a directory, through the plans of kvm_network on the libvirt that runs here; prints a report as JSON.

Run by the distribution's Python where qemu:///system is a daemon to try things on. Of each document that libvirt accepts:

    given:     XML of the user's is defined, and a second plan is empty
    told:      what the info module tells of it is a task that changes nothing
    returned:  that task on a host without the network makes the same definition

The host that the documents speak of is another one, so what a host refuses (its bridges, routes, cards) is left out here.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import activity, network
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.activity import Host
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import execute

RULES = replace(network.RULES, preflight=lambda _session, _now: Host())
NAME = "corpus"


def main(directory: str) -> None:
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    report: dict[str, list[str]] = {"refused": [], "passed": [], "options": [], "failed": []}
    for file in sorted(Path(directory).rglob("*.xml")):
        label = f"{file.parent.name}/{file.stem}"
        text = accepted(file)
        if text is None:
            report["refused"].append(label)
            continue
        try:
            report["passed"].append(label)
            report["options"] += [label] if "xml" not in tried(text) else []
        except (KvmError, AssertionError) as error:
            report["passed"].remove(label)
            report["failed"].append(f"{label}: {error}")
        finally:
            gone()
    print(json.dumps(report))


def accepted(file: Path) -> str | None:
    """Return the document under our name if libvirt takes it."""
    try:
        tree = _xml.parse(file.read_bytes(), "network")
        _xml.put(tree, "name", NAME)
        text = _xml.text_of(tree)
        handle = opened().connection.networkDefineXML(text)
    except (KvmError, libvirt.libvirtError):
        return None
    handle.undefine()
    return text


def opened() -> Libvirt:
    return Libvirt({"uri": "qemu:///system", "restart": False}, check=False)


def plan(wanted: dict[str, Any]) -> Any:
    return activity.plan(opened(), RULES, _fields.normal(network.TABLE.rows, wanted))


def defined() -> Any:
    return network.persistent_xml(opened(), network.FAMILY, opened().networks()[NAME])


def tried(text: str) -> dict[str, Any]:
    """Return the options that one document is told as."""
    execute(plan({"name": NAME, "xml": text}))
    again = plan({"name": NAME, "xml": text})
    assert not again.changed, f"given: {again.changes or again.steps}"
    before = defined()
    told: dict[str, Any] = {name: value for name, value in network.read_all(opened(), NAME)[0].items() if name not in ("state", "autostart")}
    again = plan(told)
    assert not again.changed, f"told: {again.changes or again.steps}"
    gone()
    execute(plan(told))
    again = plan(told)
    assert not again.changed, f"returned, second plan: {again.changes or again.steps}"
    after = defined()
    same = _xml.canonical(network.read_back(after)) == _xml.canonical(network.read_back(before))
    assert same, f"returned: {_xml.text_of(before)} became {_xml.text_of(after)}"
    return told


def gone() -> None:
    handle = opened().networks().get(NAME)
    if handle is not None:
        handle.undefine()


if __name__ == "__main__":
    main(sys.argv[1])
