"""Guests with random options, through the plans of kvm_domain on the libvirt that runs here: a spec a line in, a verdict a line out.

Run by the distribution's Python where qemu:///system is a daemon to try things on, once for all specs of a test. A spec has C(first),
options of a new guest, and C(then), options of the same guest afterwards. A verdict has C(outcome):

    kept      the guest was made, changed and told as the promises say
    refused   a task said why not, and left the guest as it was
    broken    neither; C(why) says what
"""

from __future__ import annotations

import difflib
import json
import sys
from typing import Any

from domain_corpus import NAME, PARAMS, gone

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import domain, domain_info
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Plan, execute, mismatch, undone

NOT_OF_THE_DEFINITION = ("state", "autostart")


class Broken(Exception):
    """A promise that was not kept."""


def main() -> None:
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    for line in sys.stdin:
        print(json.dumps(verdict(json.loads(line))), flush=True)


def verdict(spec: dict[str, Any]) -> dict[str, str]:
    try:
        why = tried(spec)
    except Broken as broken:
        return {"outcome": "broken", "why": str(broken)}
    finally:
        gone()
    return {"outcome": "refused", "why": why} if why else {"outcome": "kept", "why": ""}


def tried(spec: dict[str, Any]) -> str:
    """Return why a step was refused, or nothing; raise Broken for a promise that was not kept."""
    for step in ("first", "then"):
        why = applied(step, {"name": NAME, **spec[step]})
        if why:
            return f"{step}: {why}"
        told = domain_info.read_all(Libvirt(dict(PARAMS), check=False), NAME)[0]
        unchanged(f"{step}, told", {name: value for name, value in told.items() if name not in NOT_OF_THE_DEFINITION})
    return ""


def applied(step: str, wanted: dict[str, Any]) -> str:
    """Carry one task out as the module does; return why it was refused."""
    before = definition()
    try:
        checked, asked = plan(wanted, check=True), plan(wanted)
        if asked.changes != checked.changes:
            raise Broken(f"{step}: check mode says {checked.changes}, the real run {asked.changes}")
        execute(asked)
        why = after(asked, wanted)
    except KvmError as error:
        why = str(error)
    now = definition()
    if why and now != before:
        lines = difflib.unified_diff((before or "").splitlines(), (now or "").splitlines(), n=0, lineterm="")
        raise Broken(f"{step}: refused ({why}), yet the guest is another than before: {' '.join(lines)}")
    return why


def after(done: Plan, wanted: dict[str, Any]) -> str:
    """Return why what was carried out is undone again, or nothing."""
    try:
        again = plan(wanted)
    except KvmError as error:
        return f"{error}{undone(done.steps)}"
    return f"{mismatch(again)}{undone(done.steps)}" if again.changed else ""


def plan(wanted: dict[str, Any], check: bool = False) -> Plan:
    return domain.plan(Libvirt(dict(PARAMS), check=check), _fields.normal(domain.TABLE.rows, wanted))


def unchanged(step: str, wanted: dict[str, Any]) -> None:
    try:
        again = plan(wanted)
    except KvmError as error:
        raise Broken(f"{step}: {error}") from None
    if again.changed:
        raise Broken(f"{step}: changes {again.changes}")


def definition() -> str | None:
    handle = Libvirt(dict(PARAMS), check=False).domains().get(NAME)
    if handle is None:
        return None
    tree = _xml.parse(handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
    devices = _xml.find(tree, "devices")
    devices[:] = sorted(devices, key=_xml.text_of)  # libvirt 9.0 puts controllers in another order when it reads its own
    return _xml.text_of(tree)


if __name__ == "__main__":
    main()
