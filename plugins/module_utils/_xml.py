# SPDX-License-Identifier: GPL-3.0-or-later
"""One small path in an lxml tree. The only importer of lxml.

A path is element names joined by "/", each with optional conditions, ending in an element or an "@attribute":
C(cpu/topology/@cores), C(devices/channel[@type='unix']/target/@name). "" or "." is the element itself.
Writing makes what is missing, conditions included; clearing removes what it leaves empty. A prefix of NAMESPACES
stands for its namespace, C(dnsmasq:options/dnsmasq:option/@value).
"""

from __future__ import annotations

import re
import traceback
from functools import cache
from typing import Any, NamedTuple

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError

try:
    from lxml import etree

    LXML_IMPORT_ERROR = None
except ImportError:
    etree = None  # type: ignore[assignment]  # the module then fails with LXML_IMPORT_ERROR
    LXML_IMPORT_ERROR = traceback.format_exc()

Element = Any
NAMESPACES = {
    "dnsmasq": "http://libvirt.org/schemas/network/dnsmasq/1.0",
    "anfitrion": "https://anfitrion.kvm/template/1",
    "qemu": "http://libvirt.org/schemas/domain/qemu/1.0",
}
if etree is not None:
    for _prefix, _uri in NAMESPACES.items():
        etree.register_namespace(_prefix, _uri)
MAX_XML = 1024 * 1024  # libvirt's RPC takes 4 MiB; a definition over 1 MiB is an attack or an accident


class _Step(NamedTuple):
    tag: str
    conditions: tuple[tuple[str, str], ...]

    def matches(self, element: Element) -> bool:
        return element.tag == self.tag and all(element.get(k) == v for k, v in self.conditions)


@cache  # the paths of a table are few, and each is asked for at every object
def _split(path: str) -> tuple[tuple[_Step, ...], str | None]:
    """Return the steps of a path and the attribute that it ends in."""
    steps: list[_Step] = []
    attribute = None
    for part in re.findall(r"(?:[^/\[]|\[[^]]*\])+", path):
        if part == ".":
            continue
        if part.startswith("@"):
            attribute = part[1:]
            continue
        prefix, colon, name = part.split("[", 1)[0].rpartition(":")
        tag = f"{{{NAMESPACES[prefix]}}}{name}" if colon else name
        steps.append(_Step(tag, tuple(re.findall(r"\[@([\w:-]+)='([^']*)'\]", part))))
    return tuple(steps), attribute


def parse(text: str | bytes, root: str | None = None) -> Element:
    """Return the root element of an XML document.

    No DOCTYPE, entities, external files or more than 1 MiB. C(root): the tag that the document must have.
    Raises KvmError with the parser's line and words.
    """
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_XML:
        raise KvmError("xml: larger than 1 MiB")
    if b"\x00" in data:
        raise KvmError("xml: NUL bytes are not allowed")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise KvmError("xml: DOCTYPE is not allowed")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False,
        remove_blank_text=True, remove_comments=True, remove_pis=True,
    )  # fmt: skip
    try:
        element = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        line = error.position[0] if error.position else 0
        raise KvmError(f"xml: line {line}: {str(error.msg).partition(', line')[0]}") from None
    if root and element.tag != root:
        raise KvmError(f"xml: the root element is <{element.tag}>, expected <{root}>")
    return element


def parts_of(text: str) -> list[Element]:
    """Return the root of a document, or several elements that stand beside each other. Raises KvmError."""
    try:
        return [parse(text)]
    except KvmError as error:
        if "Extra content at the end" not in str(error) or text.lstrip().startswith("<?xml"):
            raise
    whole = parse(f"<parts>{text}</parts>")
    parts = list(whole)
    if any(part.tag == "domain" for part in parts):
        raise KvmError("xml: a whole <domain> stands alone")
    beside = "".join((whole.text or "", *(part.tail or "" for part in parts))).strip()
    if beside:
        raise KvmError(f"xml: {beside!r} stands outside of any element")
    return parts


def text_of(element: Element) -> str:
    """Return the document of an element, indented."""
    return str(etree.tostring(element, encoding="unicode", pretty_print=True))


def copy(element: Element) -> Element:
    """Return a tree of its own with the same content."""
    return etree.fromstring(etree.tostring(element))


def new(tag: str) -> Element:
    """Return an element without content."""
    return etree.Element(tag)


@cache
def beginning(path: str) -> str:
    """Return what an element must hold for a path to lead anywhere, as held() tells it."""
    steps, attribute = _split(path)
    return "/".join([*(step.tag for step in steps), *([f"@{attribute}"] if attribute else [])][:2])


def held(element: Element) -> set[str]:
    """Return where paths of one step or two lead to in an element, attributes included, and "" for itself."""
    found = {"", *(f"@{name}" for name in element.attrib)}
    for child in element:
        found.update((child.tag, *(f"{child.tag}/@{name}" for name in child.attrib), *(f"{child.tag}/{one.tag}" for one in child)))
    return found


def shape(element: Element) -> tuple[Any, ...]:
    """Return what held() depends on, in less time."""
    return (*element.keys(), *[(child.tag, *child.keys(), None, *[one.tag for one in child]) for child in element])


def find(element: Element, path: str) -> Element | None:
    """Return the first element at a path (an attribute at its end is not looked at)."""
    return _first(element, _split(path)[0])


def _first(element: Element, steps: tuple[_Step, ...]) -> Element | None:
    # Reading a guest asks this some two hundred times, mostly for an attribute of the element itself or of a child.
    if not steps:
        return element
    tag, conditions = steps[0]
    for child in element.iterchildren(tag):
        if not conditions or steps[0].matches(child):
            found = _first(child, steps[1:]) if len(steps) > 1 else child
            if found is not None:
                return found
    return None


def find_all(element: Element, path: str) -> list[Element]:
    """Return every element at a path."""
    here = [element]
    for step in _split(path)[0]:
        here = [child for parent in here for child in parent.iterchildren(step.tag)]
        if step.conditions:
            here = [child for child in here if step.matches(child)]
        if not here:
            break
    return here


def make(element: Element, path: str) -> Element:
    """Return the element at a path; make it and its parents where missing."""
    here = element
    for step in _split(path)[0]:
        child = next((c for c in here if step.matches(c)), None)
        if child is None:
            child = etree.SubElement(here, step.tag)
            for name, value in step.conditions:
                child.set(name, value)
        here = child
    return here


def add(element: Element, path: str) -> Element:
    """Return a new element at a path, beside those that are there."""
    steps, _attribute = _split(path)
    parent = element
    if len(steps) > 1:
        parent = make(element, path.rsplit("/", 1)[0])
    child = etree.SubElement(parent, steps[-1].tag)
    for name, value in steps[-1].conditions:
        child.set(name, value)
    return child


def get(element: Element, path: str) -> tuple[str | None, str | None]:
    """Return the text or attribute at a path and the unit attribute beside it; None where there is none."""
    steps, attribute = _split(path)
    owner = _first(element, steps)
    if owner is None:
        return None, None
    text = owner.get(attribute) if attribute else owner.text
    return (text.strip() if text is not None else None), owner.get("unit")


def put(element: Element, path: str, text: str, unit: str | None = None) -> None:
    """Set the text or attribute at a path; make what is missing."""
    attribute = _split(path)[1]
    owner = make(element, path)
    if attribute:
        owner.set(attribute, text)
    else:
        owner.text = text or None
    if unit:
        owner.set("unit", unit)


def clear(element: Element, path: str) -> None:
    """Remove the element or attribute at a path, and the parents that this leaves without any content."""
    attribute = _split(path)[1]
    for owner in find_all(element, path):
        if attribute:
            owner.attrib.pop(attribute, None)
            if set(owner.attrib) <= {"unit"} and not len(owner) and not owner.text:
                remove(owner, element)
        else:
            remove(owner, element)


def remove(child: Element, root: Element) -> None:
    """Take an element out of its parent, and each parent below C(root) that this leaves empty."""
    while child is not root:
        parent = child.getparent()
        if parent is None:
            return
        parent.remove(child)
        if len(parent) or parent.attrib or parent.text:
            return
        child = parent


ORDERED = ("boot", "arg", "certificate", "tag")  # elements whose order among themselves says something


def canonical(element: Element) -> tuple[Any, ...]:
    """Return the content of an element for comparison: order of attributes, and of siblings unless ORDERED, is none."""
    children = [(place, canonical(child)) for place, child in enumerate(element)]
    children.sort(key=lambda pair: (pair[1][0], pair[0] if _local(pair[1][0]) in ORDERED else 0, repr(pair[1])))
    inside = tuple(child for _place, child in children)
    return (str(element.tag), tuple(sorted(element.attrib.items())), (element.text or "").strip(), inside)


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]
