# SPDX-License-Identifier: GPL-3.0-or-later
"""One object per kind of value: its Ansible type, its unit, its one normal form and when two of them mean the same.

Laws, held by tests/unit/test_codecs.py: C(from_xml(to_xml(v)) == normal(v)) and C(normal(normal(v)) == normal(v)).
A value that cannot be of the kind raises ValueError with a text for the user.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, ClassVar

CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")  # and what no XML document can hold


# What a decorator makes costs every task time: what nothing compares or prints is not made, and a kind without a field of its own needs none.
@dataclass(frozen=True, eq=False, repr=False)
class Codec:
    """What all kinds share: no control characters (a newline in a value becomes a line of its own in dnsmasq's files)."""

    type: ClassVar[str] = "str"
    unit: ClassVar[str | None] = None
    presence: ClassVar[bool] = False

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that a user may write; none: any."""
        return ()

    def normal(self, value: Any) -> Any:
        """Return the one normal form of a value that the user or libvirt wrote."""
        text = str(value)
        if CONTROL.search(text):
            raise ValueError("control characters are not allowed")
        return text

    def to_xml(self, value: Any) -> str:
        return str(self.normal(value))

    def from_xml(self, text: str, unit: str | None = None) -> Any:  # noqa: ARG002  the signature is every codec's
        """Return the normal value of what libvirt printed; C(unit) is the unit attribute beside it."""
        return self.normal(text)

    def same(self, wanted: Any, found: Any) -> bool:
        """Tell whether the two normal values ask for the same thing."""
        return bool(wanted == found)


class Text(Codec):
    """Free text in one line; blanks around it do not count."""

    def normal(self, value: Any) -> str:
        text = str(super().normal(value)).strip()
        if not text:
            raise ValueError("must not be empty")
        return text


class Prose(Text):
    """Free text of any number of lines."""

    def normal(self, value: Any) -> str:
        return "\n".join(Codec.normal(self, line.replace("\t", " ")) for line in str(value).strip().split("\n")) or super().normal("")


@dataclass(frozen=True, eq=False, repr=False)
class Pattern(Codec):
    """Text that matches a pattern; C(says) completes the sentence "expected …"."""

    pattern: str = ".*"
    says: str = "text"
    longest: int = 4096

    def normal(self, value: Any) -> str:
        text = str(super().normal(value))
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"expected {self.says}")
        if len(text.encode()) > self.longest:
            raise ValueError(f"longer than {self.longest} bytes")
        return text


@dataclass(frozen=True, eq=False, repr=False)
class ObjectName(Codec):
    """The name of a libvirt object: it becomes a file name, and part of command lines and logs."""

    longest: int = 200
    wrong: str = "/;|&$`<>\"'\\*?"

    def normal(self, value: Any) -> str:
        text = str(super().normal(value))
        if not text:
            raise ValueError("must not be empty")
        if text in (".", ".."):
            raise ValueError('"." and ".." are reserved')
        if text != text.strip():
            raise ValueError("leading or trailing blank")
        if len(text.encode()) > self.longest:
            raise ValueError(f"longer than {self.longest} bytes")
        wrong = re.search(f"[{re.escape(self.wrong)}]", text)
        if wrong:
            raise ValueError(f'"{wrong.group()}" is not allowed')
        return text


@dataclass(frozen=True, eq=False, repr=False)
class Integer(Codec):
    """A whole number within bounds; the bounds are libvirt's, so that no number reaches it that it cannot bear."""

    type: ClassVar[str] = "int"
    low: int = 0
    high: int = 2**31 - 1

    def normal(self, value: Any) -> int:
        try:
            number = int(value, 0) if isinstance(value, str) else int(value)
        except ValueError:
            raise ValueError("not a whole number") from None
        if isinstance(value, float) and value != number:
            raise ValueError("not a whole number")
        if not self.low <= number <= self.high:
            raise ValueError(f"not in {self.low}..{self.high}")
        return number


@dataclass(frozen=True, eq=False, repr=False)
class Choice(Codec):
    """One of libvirt's own words, in lower case; C(spelled): how libvirt writes those that have a capital."""

    words: tuple[str, ...] = ()
    spelled: tuple[tuple[str, str], ...] = ()

    @property
    def choices(self) -> tuple[str, ...]:
        return self.words

    def normal(self, value: Any) -> str:
        return str(super().normal(value)).lower()

    def to_xml(self, value: Any) -> str:
        word = self.normal(value)
        return dict(self.spelled).get(word, word)

    def from_xml(self, text: str, unit: str | None = None) -> str | None:  # noqa: ARG002  the signature is every codec's
        # A word that no user can write here is not ours: another option says it, or only O(xml) can.
        return text.lower() if text.lower() in self.words else None


@dataclass(frozen=True, eq=False, repr=False)
class Flag(Codec):
    """True or false in the words of one attribute: libvirt takes yes/no in one place and on/off in another.

    C(apart): an attribute that is not there is something else than one that says no, such as what QEMU thinks best.
    """

    type: ClassVar[str] = "bool"
    true: str = "yes"
    false: str = "no"
    apart: bool = False

    def normal(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        text = str(value).lower()
        if text in (self.true, "yes", "on", "true", "1"):
            return True
        if text in (self.false, "no", "off", "false", "0"):
            return False
        raise ValueError("neither true nor false")

    def to_xml(self, value: Any) -> str:
        return self.true if self.normal(value) else self.false


class Presence(Codec):
    """True when the element is there at all, as C(<locked/>); its text and attributes do not matter."""

    type: ClassVar[str] = "bool"
    presence: ClassVar[bool] = True

    def normal(self, value: Any) -> bool:
        return value if isinstance(value, bool) else True

    def to_xml(self, value: Any) -> str:  # noqa: ARG002  the signature is every codec's
        return ""


_UNITS = {"b": 1, "bytes": 1, "": 1}
for _power, _letter in enumerate("kmgtpe", start=1):
    _UNITS.update({_letter: 1024**_power, f"{_letter}ib": 1024**_power, f"{_letter}b": 1000**_power})


@dataclass(frozen=True, eq=False, repr=False)
class Size(Codec):
    """A size with its unit, as C(4GiB); the normal form has the largest IEC unit that divides it.

    C(unit) is the unit that libvirt gets and assumes where it prints none. Sizes are rounded up to C(unit),
    as libvirt does. Units: KiB to EiB (powers of 1024), KB to EB (powers of 1000), K to E (as KiB), B.
    """

    unit: ClassVar[str] = "KiB"
    low: int = 1

    def bytes(self, value: Any) -> int:
        """Return the size in bytes."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value))
        if not match:
            raise ValueError("not a size; expected for example 2GiB")
        digits, unit = match.groups()
        if not unit and float(digits) != 0:
            raise ValueError("has no unit; expected for example 2GiB")
        if unit.lower() not in _UNITS:
            raise ValueError(f'unit "{unit}" is unknown; one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB')
        scale = _UNITS[unit.lower()]
        return round(float(digits) * scale) if "." in digits else int(digits) * scale

    def normal(self, value: Any) -> str:
        grain = _UNITS[self.unit.lower()]
        count = -(-self.bytes(value) // grain) * grain
        if count < self.low:
            raise ValueError("must be more than 0")
        if count >= 2**63:
            raise ValueError("must be less than 8EiB")
        return self.words(count)

    @staticmethod
    def words(count: int) -> str:
        """Return a number of bytes as the shortest exact size."""
        for letter in "EPTGMK":
            scale = _UNITS[f"{letter.lower()}ib"]
            if count and count % scale == 0:
                return f"{count // scale}{letter}iB"
        return f"{count}B"

    def to_xml(self, value: Any) -> str:
        return str(self.bytes(self.normal(value)) // _UNITS[self.unit.lower()])

    def from_xml(self, text: str, unit: str | None = None) -> str:
        return self.words(self.bytes(f"{text.strip()}{unit or self.unit}"))


class ByteSize(Size):
    """A size that libvirt counts in bytes (volumes)."""

    unit: ClassVar[str] = "bytes"


@dataclass(frozen=True, eq=False, repr=False)
class CpuSet(Codec):
    """Numbers of CPUs or NUMA nodes as C(0-3,^2); the normal form is ranges in order, as the kernel prints them."""

    highest: int = 4095

    def numbers(self, value: Any) -> frozenset[int]:
        """Return the chosen numbers."""
        chosen: set[int] = set()
        excluded: set[int] = set()
        for part in str(value).replace(" ", "").split(","):
            match = re.fullmatch(r"(\^?)(\d+)(?:-(\d+))?", part)
            if not match:
                raise ValueError(f'bad range "{part}"; expected for example 0-3,^2')
            first, last = int(match[2]), int(match[3] or match[2])
            if last < first:
                raise ValueError(f'bad range "{part}" (start after end)')
            if last > self.highest:
                raise ValueError(f"number above {self.highest}")
            (excluded if match[1] else chosen).update(range(first, last + 1))
        if not chosen - excluded:
            raise ValueError("selects nothing")
        return frozenset(chosen - excluded)

    def normal(self, value: Any) -> str:
        ranges: list[list[int]] = []
        for number in sorted(self.numbers(value)):
            if ranges and number == ranges[-1][1] + 1:
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


class Mac(Codec):
    """A unicast MAC address in lower case with colons."""

    def normal(self, value: Any) -> str:
        text = str(value).lower()
        if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", text):
            raise ValueError("expected xx:xx:xx:xx:xx:xx")
        if int(text[:2], 16) & 1:
            raise ValueError("multicast, the first octet must be even")
        if text == "00:00:00:00:00:00":
            raise ValueError("all zeros")
        return text


class Uuid(Codec):
    """A UUID in lower case with dashes."""

    def normal(self, value: Any) -> str:
        text = str(value)
        if not re.fullmatch(r"[0-9A-Fa-f]{8}-?([0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}", text):
            raise ValueError("not a UUID")
        digits = text.replace("-", "").lower()
        if set(digits) in ({"0"}, {"f"}):
            raise ValueError("nil or max UUID is not allowed")
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


class PciAddress(Codec):
    """A PCI address, C(0000:01:10.2); in XML an element with domain, bus, slot and function."""

    def normal(self, value: Any) -> str:
        match = re.fullmatch(r"(?:([0-9a-f]{4,5}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])", str(value).lower())
        if not match:
            raise ValueError("expected dddd:bb:ss.f")
        if int(match[1] or "0", 16) > 0xFFFF:
            raise ValueError("domain: > 0xffff")
        return f"{match[1] or '0000'}:{match[2]}:{match[3]}.{match[4]}"

    def attributes(self, value: Any) -> dict[str, str]:
        """Return the attributes of libvirt's C(<address>)."""
        domain, bus, slot, function = re.split(r"[:.]", self.normal(value))
        return {"domain": f"0x{domain}", "bus": f"0x{bus}", "slot": f"0x{slot}", "function": f"0x{function}"}

    def of_attributes(self, attributes: Any) -> str:
        """Return the address that the attributes of an C(<address>) name."""
        parts = [int(attributes.get(part, "0"), 0) for part in ("domain", "bus", "slot", "function")]
        return "{:04x}:{:02x}:{:02x}.{:x}".format(*parts)


# The attributes of each type of address, in the order in which its text has them, and what is between them.
_PLACES: dict[str, tuple[tuple[str, ...], str]] = {
    "drive": (("controller", "bus", "target", "unit"), ":"),
    "usb": (("bus", "port"), ":"),
    "virtio-serial": (("controller", "bus", "port"), ":"),
    "ccid": (("controller", "slot"), ":"),
    "dimm": (("slot", "base"), ":"),
    "isa": (("iobase", "irq"), ":"),
    "spapr-vio": (("reg",), ":"),
    "ccw": (("cssid", "ssid", "devno"), "."),
    "virtio-mmio": ((), ""),
    "unassigned": ((), ""),
}


class GuestAddress(Codec):
    """Where a device is in the guest: a PCI address, C(0000:00:03.0), or a type and its numbers, C(drive 0:0:0:1)."""

    whole: ClassVar[bool] = True  # another address has other attributes

    def normal(self, value: Any) -> str:
        kind, _blank, rest = str(super().normal(value)).strip().lower().partition(" ")
        if kind not in _PLACES:
            if rest not in ("", "multifunction"):
                raise ValueError("expected dddd:bb:ss.f, and multifunction after it")
            return f"{PCI.normal(kind)} {rest}".strip()
        names, mark = _PLACES[kind]
        numbers = rest.split(mark) if rest else []
        if len(numbers) > len(names) or not all(re.fullmatch(r"[0-9a-fx.]+", one) for one in numbers):
            raise ValueError(f"expected {kind} {mark.join(names)}".strip())
        return f"{kind} {mark.join(numbers)}".strip()

    def attributes(self, value: Any) -> dict[str, str]:
        """Return the attributes of libvirt's C(<address>)."""
        kind, _blank, rest = self.normal(value).partition(" ")
        if kind not in _PLACES:
            return {"type": "pci", **PCI.attributes(kind), **({"multifunction": "on"} if rest else {})}
        names, mark = _PLACES[kind]
        written = dict(zip(names, rest.split(mark) if rest else []))
        return {"type": kind, **{name: f"0x{text}" if kind == "ccw" and name != "ssid" else text for name, text in written.items()}}

    def of_attributes(self, attributes: Any) -> str | None:
        """Return the place that the attributes of an C(<address>) name; None for one of no type that we know."""
        kind = attributes.get("type")
        if kind == "pci":
            more = " multifunction" if attributes.get("multifunction") == "on" else ""
            return f"{PCI.of_attributes(attributes)}{more}" if "slot" in attributes or "bus" in attributes else None
        if kind not in _PLACES:
            return None
        names, mark = _PLACES[kind]
        numbers = [attributes[name].lower() for name in names if name in attributes]
        return f"{kind} {mark.join(one[2:] if kind == 'ccw' and one[:2] == '0x' else one for one in numbers)}".strip()


@dataclass(frozen=True, eq=False, repr=False)
class Numbers(Codec):
    """Numbers with colons between them, C(0:0:3); in XML an element with an attribute for each of C(names)."""

    names: tuple[str, ...] = ()

    def normal(self, value: Any) -> str:
        parts = str(value).split(":")
        if len(parts) != len(self.names) or not all(re.fullmatch(r"\d+|0x[0-9a-fA-F]+", part) for part in parts):
            raise ValueError(f"expected {':'.join(self.names)}, each a number")
        return ":".join(str(int(part, 0)) for part in parts)

    def attributes(self, value: Any) -> dict[str, str]:
        """Return the attributes of the element."""
        return dict(zip(self.names, self.normal(value).split(":")))

    def of_attributes(self, attributes: Any) -> str | None:
        """Return the numbers that the attributes hold; None where one is missing."""
        return self.normal(":".join(attributes[name] for name in self.names)) if all(n in attributes for n in self.names) else None


class HostPort(Codec):
    """A server with an optional port, C(nfs.example) or C([2001:db8::1]:3260); in XML an element with name and port."""

    def normal(self, value: Any) -> str:
        text = str(super().normal(value))
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(?::(\d{1,5}))?", text)
        if not match or int(match[3] or 1) not in range(1, 65536):
            raise ValueError("expected a host name or address, with :port if it is not the usual one")
        return text.lower()

    def attributes(self, value: Any) -> dict[str, str]:
        """Return the attributes of libvirt's C(<host>)."""
        name, _colon, port = re.fullmatch(r"(\[.*\]|[^:]*)(:?)(.*)", self.normal(value)).groups()  # type: ignore[union-attr]
        return {"name": name.strip("[]"), **({"port": port} if port else {})}

    def of_attributes(self, attributes: Any) -> str:
        """Return the server that the attributes of a C(<host>) name."""
        name, port = str(attributes.get("name", "")), attributes.get("port")
        shown = f"[{name}]" if ":" in name else name
        return f"{shown}:{port}".lower() if port else shown.lower()


class BlockDevice(Codec):
    """A block device by its absolute path, or an iSCSI target by its qualified name (RFC 3720)."""

    def normal(self, value: Any) -> str:
        text = str(super().normal(value))
        if re.fullmatch(r"(iqn|eui|naa)\.[A-Za-z0-9._:-]+", text):
            return text
        return PATH.normal(text)


class AbsolutePath(Codec):
    """An absolute path; doubled and trailing slashes are cleaned, as libvirt does."""

    def normal(self, value: Any) -> str:
        text = str(super().normal(value))
        if not text.startswith("/"):
            raise ValueError("must be an absolute path")
        if ".." in text.split("/"):
            raise ValueError('".." is not allowed')
        return re.sub(r"/+", "/", text).rstrip("/") or "/"


class Address(Codec):
    """An IPv4 or IPv6 address in its shortest spelling."""

    def normal(self, value: Any) -> str:
        try:
            return str(ipaddress.ip_address(str(value)))
        except ValueError:
            raise ValueError("not an IP address") from None


class Prefix(Codec):
    """The length of a network prefix; a netmask such as 255.255.255.0 is read as its length."""

    type: ClassVar[str] = "int"

    def normal(self, value: Any) -> int:
        text = str(value)
        if "." in text:
            try:
                return ipaddress.ip_network(f"0.0.0.0/{text}").prefixlen
            except ValueError:
                raise ValueError("netmask is not contiguous") from None
        if not text.isdigit() or not 0 < int(text) <= 128:
            raise ValueError("not in 1..128")
        return int(text)


class Machine(Codec):
    """A machine type; the aliases C(q35) and C(pc) mean whatever version of it the guest already has."""

    def same(self, wanted: Any, found: Any) -> bool:
        aliases = {"q35": "pc-q35-", "pc": "pc-i440fx-"}
        return bool(wanted == found or (wanted in aliases and str(found).startswith(aliases[wanted])))


class Mode(Codec):
    """An octal file mode as a quoted string, C("0711")."""

    def normal(self, value: Any) -> str:
        text = str(value)
        if not re.fullmatch(r"0?[0-7]{3}", text):
            raise ValueError("expected a quoted octal mode such as '0711'")
        if int(text, 8) & 0o002:
            raise ValueError("world-writable is refused")
        return f"0{text[-3:]}"


TEXT = Text()
PROSE = Prose()
NAME = ObjectName()
NAME_OF_OTHERS = ObjectName(wrong="/")  # of an object that is referred to: whoever made it, libvirt took the name
INTEGER = Integer()
YES_NO = Flag()
ON_OFF = Flag(true="on", false="off")
SAID_YES_NO = Flag(apart=True)
SAID_ON_OFF = Flag(true="on", false="off", apart=True)
PRESENCE = Presence()
SIZE = Size()
BYTES = ByteSize(low=0)
CPUSET = CpuSet()
NODESET = CpuSet(highest=1023)
MAC = Mac()
UUID = Uuid()
PCI = PciAddress()
PLACE = GuestAddress()
SCSI_UNIT = Numbers(names=("bus", "target", "unit"))
PATH = AbsolutePath()
HOST = HostPort()
DEVICE = BlockDevice()
ADDRESS = Address()
PREFIX = Prefix()
MACHINE = Machine()
MODE = Mode()
INTERFACE = Pattern(
    pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", says="at most 15 characters of A-Za-z0-9._-", longest=15
)
HOSTNAME = Pattern(pattern=r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", says="a valid host name", longest=253)
WORD = Pattern(pattern=r"[A-Za-z0-9][A-Za-z0-9._:+-]*", says="a word of A-Za-z0-9._:+-")


# libvirt drops a user alias with any other character without a word.
ALIAS_WORD = Pattern(pattern=r"[A-Za-z0-9][A-Za-z0-9_-]*", says="a word of A-Za-z0-9_-")


class Alias(Codec):
    """A name of the user's, kept as libvirt's user alias C(ua-…); libvirt's own aliases are no names."""

    def normal(self, value: Any) -> str:
        return str(ALIAS_WORD.normal(value))

    def to_xml(self, value: Any) -> str:
        return f"ua-{self.normal(value)}"

    def from_xml(self, text: str, unit: str | None = None) -> str | None:  # noqa: ARG002  the signature is every codec's
        return text[3:] if text.startswith("ua-") else None


class Document(Codec):
    """XML as text; it is parsed, and refused with its line, where it is used."""

    def normal(self, value: Any) -> str:
        return str(value)


ALIAS = Alias()
XML = Document()
