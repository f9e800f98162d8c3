"""Every domain XML of a directory, through the plans of kvm_domain on the libvirt that runs here; prints a report as JSON.

Run by the distribution's Python where qemu:///system is a daemon to try things on. Of each document that libvirt accepts:

    told:   it is defined, and what the info module tells of it is a task that changes nothing
    elsewhere: the same makes the same guest where there is none
    given:  it is given as XML of the user's, and a second plan is empty

Nothing is started. What the embedded driver is asked, it is asked in one child for all of them: a child for each, which the module
has, would cost minutes. A document that crashes a parser has crashed the daemon before, and counts as refused.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from domain_coverage import NAME, collected

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import domain, domain_info, oracle
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Plan, execute

PARAMS = {row.name: getattr(row, "default", None) for row in domain.OPTIONS} | {"uri": "qemu:///system"}
NOT_OF_THE_DEFINITION = ("state", "autostart")


def main(corpus: str) -> None:
    documents = collected(Path(corpus))
    report: dict[str, Any] = {"accepted": sorted(documents), "told": {}, "elsewhere": {}, "given": {}}
    have_named(documents)
    with tempfile.TemporaryDirectory(dir="/run", prefix="corpus-") as root:
        oracle.read_back = Embedded(root).read_back
        for label, text in documents.items():
            for form, tried in (("told", told), ("elsewhere", elsewhere), ("given", given)):
                try:
                    tried(text["given"])
                except (KvmError, AssertionError) as error:
                    report[form][label] = str(error)
                finally:
                    gone()
    print(json.dumps(report))


def have_named(documents: dict[str, dict[str, str]]) -> None:
    """Define the networks and pools that the documents name; none of them is started."""
    session = Libvirt(dict(PARAMS), check=False)
    trees = [_xml.parse(text["given"]) for text in documents.values()]
    sources = [one for tree in trees for kind in ("interface", "disk") for one in _xml.find_all(tree, f"devices/{kind}/source")]
    for name in sorted({one.get("network") for one in sources} - {None, *session.networks()}):
        session.connection.networkDefineXML(f"<network><name>{name}</name></network>")
    for name in sorted({one.get("pool") for one in sources} - {None, *session.pools()}):
        session.connection.storagePoolDefineXML(f"<pool type='dir'><name>{name}</name><target><path>/nowhere/{name}</path></target></pool>", 0)


class Embedded:
    """libvirt's QEMU driver in a child, as the module asks it, but one child for all documents."""

    def __init__(self, root: str) -> None:
        (Path(root) / "etc").mkdir()
        (Path(root) / "etc" / "qemu.conf").write_text('user = "+0"\ngroup = "+0"\n', encoding="ascii")
        shutil.copytree(oracle.CAPABILITIES, Path(root) / "cache" / "qemu" / "capabilities")
        command = [sys.executable, __file__, "--embedded", f"qemu:///embed?root={root}"]
        self.root = root
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read_back(self, _uri: str, document: str) -> str:
        assert self.child.stdin
        assert self.child.stdout
        print(json.dumps(oracle.placed(document, self.root)), file=self.child.stdin, flush=True)
        text, refusal = json.loads(self.child.stdout.readline())
        if refusal:
            raise KvmError(f"xml: libvirt refuses it: {refusal}")
        return oracle.taken_back(text, self.root)


def embedded(uri: str) -> None:
    """Answer each document on standard input with what libvirt makes of it, or why it refuses it."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=turn, daemon=True).start()
    connection = libvirt.open(uri)
    for line in sys.stdin:
        try:
            handle = connection.defineXML(json.loads(line))
            answer = [handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE), None]
            undefine(handle)
        except libvirt.libvirtError as error:
            answer = [None, str(error)]
        print(json.dumps(answer), flush=True)
    os._exit(0)  # the event loop's thread does not end


def turn() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def plan(wanted: dict[str, Any]) -> Plan:
    return domain.plan(Libvirt(dict(PARAMS), check=False), _fields.normal(domain.TABLE.rows, wanted))


def told(text: str) -> None:
    unchanged(plan(exported(text)[0]))


def exported(text: str) -> tuple[dict[str, Any], Any]:
    """Define a document; return what the info module tells of it, and what libvirt prints.

    It is defined as libvirt reads it again: a virtio console beside a serial port gets another number by that.
    """
    session = Libvirt(dict(PARAMS), check=False)
    handle = session.connection.defineXML(text)
    session.connection.defineXML(handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
    options = domain_info.read_all(session, NAME)[0]
    return {name: value for name, value in options.items() if name not in NOT_OF_THE_DEFINITION}, printed(session)


def printed(session: Libvirt) -> Any:
    return _xml.parse(session.connection.lookupByName(NAME).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


def elsewhere(text: str) -> None:
    options, before = exported(text)
    gone()
    execute(plan(options))
    after = printed(Libvirt(dict(PARAMS), check=False))
    lines = difflib.unified_diff(*(_xml.text_of(tree).splitlines() for tree in (before, after)), lineterm="", n=1)
    assert _xml.canonical(before) == _xml.canonical(after), "\n".join(lines)


def given(text: str) -> None:
    execute(plan({"name": NAME, "xml": text}))
    unchanged(plan({"name": NAME, "xml": text}))


def unchanged(again: Plan) -> None:
    assert not again.changed, "; ".join(f"{one.option}: has {one.before!r}, asked {one.after!r}" for one in again.changes) or str(again.steps)


def gone() -> None:
    handle = Libvirt(dict(PARAMS), check=False).domains().get(NAME)
    if handle is not None:
        undefine(handle)


def undefine(handle: Any) -> None:
    handle.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM)


if __name__ == "__main__":
    embedded(sys.argv[2]) if sys.argv[1] == "--embedded" else main(sys.argv[1])
