"""How much of libvirt's domain format the options of kvm_domain say, measured on the documents of libvirt's own test suite.

    domain_coverage.py                 prints the share of elements and attributes that options can say, and what they cannot
    domain_coverage.py --missing 60    with the 60 places that are missed most often
    domain_coverage.py --kept FILE     measures the documents that FILE keeps; makes FILE if it is not there

Each document that the QEMU driver of the installed libvirt accepts is read as options, and these are written into an empty
definition. An element with its text, or an attribute with its value, counts as said when it is there again. Counted is what
libvirt kept of each document, and apart from that what the document itself holds, there by place only since libvirt respells values.

A private libvirtd (scripts/private-libvirtd) takes the documents, so it needs root. The distribution's Python, lxml and libvirt.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).resolve().parents[1]
NAME = "corpus"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how much of libvirt's domain format the options of kvm_domain say.")
    parser.add_argument("--missing", type=int, default=20, metavar="N", help="how many of the missed places to print (default: %(default)s)")
    parser.add_argument("--kept", type=Path, metavar="FILE", help="where the accepted documents are kept for a next time")
    parser.add_argument("--least", type=float, metavar="PERCENT", help="fail below this share")
    parser.add_argument("--collect", type=Path, metavar="CORPUS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.collect:
        print(json.dumps(collected(given.collect)))
        return
    sys.path.insert(0, str(ROOT / ".ansible" / "collections"))
    kept, missed = measured(documents(given.kept))
    for place, count in missed.most_common(given.missing):
        print(f"{count:6}  {place}")
    if given.least and kept < given.least:
        sys.exit(f"domain_coverage: {kept:.1f} % is less than {given.least} %")


def documents(file: Optional[Path]) -> dict[str, dict[str, str]]:
    """Return each accepted document, as given and as kept, by the name of its file."""
    if file is not None and file.exists():
        return json.loads(file.read_text())
    corpus = subprocess.check_output([sys.executable, str(ROOT / "scripts" / "libvirt_corpus.py")], text=True).splitlines()[-1]
    daemon = str(ROOT / "scripts" / "private-libvirtd")
    with tempfile.TemporaryDirectory(prefix="coverage-") as directory:
        subprocess.run([daemon, "start", directory, "--net", "private", "--address-space", "8192"], check=True, stdout=subprocess.DEVNULL)
        try:
            command = [daemon, "exec", directory, "--", "/usr/bin/python3", str(Path(__file__).resolve()), "--collect", corpus]
            text = subprocess.check_output(command, text=True)
        finally:
            subprocess.run([daemon, "stop", directory], check=True)
    if file is not None:
        file.write_text(text)
    return json.loads(text)


# Inside the namespaces of the private libvirtd ------------------------------------------------------------------------


def collected(corpus: Path) -> dict[str, dict[str, str]]:
    """Return every document of a directory that libvirt accepts; one that its parser crashes on counts as refused."""
    import libvirt  # noqa: PLC0415  only this half needs it

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    connection = opened(libvirt)
    found = {}
    for file in sorted(corpus.rglob("*.xml")):
        text = adapted(file.read_bytes())
        if text is None:
            continue
        try:
            handle = connection.defineXML(text)
            kept = handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
            handle.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
        except libvirt.libvirtError:
            if not connection.isAlive():
                connection = opened(libvirt)
            continue
        found[f"{file.parent.name}/{file.stem}"] = {"given": text, "kept": kept}
    return found


def opened(libvirt: Any) -> Any:
    """Return a connection; the daemon may just have been started again after a crash."""
    import time  # noqa: PLC0415

    for _attempt in range(100):
        try:
            return libvirt.open("qemu:///system")
        except libvirt.libvirtError:
            time.sleep(0.1)
    raise SystemExit("domain_coverage: the private libvirtd does not answer")


def adapted(data: bytes) -> Optional[str]:
    """Return a document under our name, and emulated, since a machine that tests may have no KVM; None for what is no guest's."""
    from lxml import etree  # noqa: PLC0415

    try:
        tree = etree.fromstring(data)
    except etree.XMLSyntaxError:
        return None
    name = tree.find("name")
    if tree.tag != "domain" or name is None:
        return None
    name.text = NAME
    if tree.get("type") == "kvm":
        tree.set("type", "qemu")
    return str(etree.tostring(tree, encoding="unicode"))


# What the options say ---------------------------------------------------------------------------------------------------


def measured(found: dict[str, dict[str, str]]) -> tuple[float, Counter[str]]:
    """Print the shares; return that of what libvirt keeps, and how often each place is missed."""
    from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml  # noqa: PLC0415

    missed: Counter[str] = Counter()
    share = {}
    for form in ("kept", "given"):
        every = said = 0
        for text in found.values():
            tree = _xml.parse(text[form[:5]])
            there, again = (Counter(occurrences(one, values=form == "kept")) for one in (tree, rewritten(tree)))
            lost = there - again
            every, said = every + sum(there.values()), said + sum(there.values()) - sum(lost.values())
            if form == "kept":
                for (place, _value), count in lost.items():
                    missed[place] += count
        share[form] = 100 * said / every
        words = {"kept": "as libvirt keeps them, with their values", "given": "as they are given"}[form]
        print(f"{share[form]:.1f} % of {every} elements and attributes of {len(found)} documents, {words}")
    return share["kept"], missed


def rewritten(tree: Any) -> Any:
    """Return the definition that the options which are read from one make."""
    from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields  # noqa: PLC0415
    from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain import TABLE, blank  # noqa: PLC0415

    done = blank(NAME)
    _fields.write(TABLE.rows, done, takeable(TABLE.rows, _fields.read(TABLE.rows, tree)))
    return done


def takeable(rows: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without the values that a user could not give: they are told, but not said."""
    from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items  # noqa: PLC0415

    done = {}
    for row in rows:
        value = options.get(row.name)
        if isinstance(row, Items):
            value = [takeable(row.rows, item) for item in value or []] or None
        elif value is not None and not isinstance(row, Field):
            value = takeable(row.rows, value)
        elif value is not None:
            try:
                [row.codec.normal(one) for one in (value if row.many else [value])]
            except ValueError:
                value = None
        if value is not None:
            done[row.name] = value
    return done


def occurrences(element: Any, values: bool, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield every element and attribute below, and including, this one: its place, and its text or value if that is to count."""
    place = f"{above}/{element.tag.rpartition('}')[2]}"
    yield place, (element.text or "").strip() if values else ""
    for name, value in element.attrib.items():
        yield f"{place}/@{name}", value if values else ""
    for child in element:
        if isinstance(child.tag, str):
            yield from occurrences(child, values, place)


if __name__ == "__main__":
    main()
