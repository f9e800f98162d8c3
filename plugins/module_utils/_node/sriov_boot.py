# SPDX-License-Identifier: GPL-3.0-or-later
"""VFs after a reboot: one file for each PF and a unit that waits for its interface.

Not systemd.link: it knows no rates, never clears a VLAN, creates VFs while the PF is down (some drivers refuse), and
makes them again without asking when it is triggered. A PF is known by its permanent MAC address, since another card moves
its PCI address and another naming scheme its name. A udev rule gives its interface a device unit of that name; the unit
waits for it, since NICs may appear long after multi-user.target, and comes before libvirt, whose VF networks and
autostarted guests need the VFs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import (
    UNITS,
    Part,
    file_part,
    persisted_changes,
    unit_part,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Root

if TYPE_CHECKING:
    from ansible_collections.anfitrion.kvm.plugins.module_utils._node.port import Port

DIRECTORY = "/etc/anfitrion.d/sriov"
SCRIPT = "/usr/local/lib/anfitrion/sriov"
UNIT = "anfitrion-sriov@.service"
RULES = "/etc/udev/rules.d/99-zz-anfitrion-sriov.rules"  # after 99-systemd.rules, which sets the alias first
SCRIPT_TEXT = f"""#!/bin/sh
{HEADER}# usage: sriov KEY: makes the VFs that {DIRECTORY}/KEY.conf declares.
# Run again, it changes nothing that may be in use: no count above 0, no attribute of a VF that libvirt gave a guest.
conf={DIRECTORY}/$1.conf
status=0
pf=
complain() {{ echo "${{pf:-$1}}: $*" >&2; status=1; }}

wanted_mac=
while read -r word value _; do [ "$word" != mac ] || wanted_mac=$value; done < "$conf"
for one in /sys/class/net/*; do
  [ -e "$one/device/sriov_totalvfs" ] || continue
  mac=$(cat "$one/bonding_slave/perm_hwaddr" 2>/dev/null || cat "$one/address")
  [ "$mac" != "$wanted_mac" ] || pf=${{one##*/}}
done
[ -n "$pf" ] || {{ complain "no physical function has the MAC address $wanted_mac"; exit 1; }}
device=/sys/class/net/$pf/device
at=$(basename "$(readlink -f "$device")")

eswitch() {{
  case $(devlink dev eswitch show "pci/$at") in *"mode $1"*) return ;; esac
  bound=
  for vf in "$device"/virtfn*; do
    [ -e "$vf/driver" ] || continue
    vf=$(basename "$(readlink -f "$vf")")
    bound="$bound $vf"
    echo "$vf" > "/sys/bus/pci/devices/$vf/driver/unbind"
  done
  devlink dev eswitch set "pci/$at" mode "$1" || complain "eswitch mode $1 refused"
  for vf in $bound; do echo "$vf" > /sys/bus/pci/drivers_probe; done
}}

# The host's drivers see new VFs when these have their attributes: a driver that finds no MAC address makes up its own.
held=
bind() {{
  [ -n "$held" ] || return
  held=
  echo 1 > "$device/sriov_drivers_autoprobe"
  for vf in "$device"/virtfn*; do
    [ -e "$vf/driver" ] || basename "$(readlink -f "$vf")" > /sys/bus/pci/drivers_probe
  done
  udevadm settle --timeout=30
}}
trap bind EXIT
trap 'exit 1' TERM

while read -r word value rest; do
  case $word in
    link) ip link set dev "$pf" "$value" || complain "cannot be set $value" ;;
    autoprobe) echo "$value" > "$device/sriov_drivers_autoprobe" || complain "autoprobe refused" ;;
    eswitch) eswitch "$value" ;;
    count)
      read -r have < "$device/sriov_numvfs"
      if [ "$have" = 0 ] && [ "$value" != 0 ]; then
        read -r probe < "$device/sriov_drivers_autoprobe" && [ "$probe" = 1 ] && echo 0 > "$device/sriov_drivers_autoprobe" && held=yes
        echo "$value" > "$device/sriov_numvfs"
        udevadm settle --timeout=30
      fi
      read -r have < "$device/sriov_numvfs"
      [ "$have" = "$value" ] || complain "asked $value VFs, has $have" ;;
    vf)
      [ ! -e "/run/libvirt/hostdevmgr/${{pf}}_vf$value" ] || continue # libvirt has set it for a guest
      # shellcheck disable=SC2086
      ip link set dev "$pf" vf "$value" $rest || complain "VF $value: $rest refused" ;;
  esac
done < "$conf"
exit "$status"
"""
UNIT_TEXT = f"""{HEADER}[Unit]
Description=Virtual functions of the physical function %I
ConditionPathExists={DIRECTORY}/%I.conf
BindsTo=anfitrion-pf-%i.device
After=anfitrion-pf-%i.device
Before=libvirtd.service virtqemud.service virtnetworkd.service virtnodedevd.service libvirt-guests.service

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=300
ExecStart=/bin/sh {SCRIPT} %I

[Install]
WantedBy=multi-user.target anfitrion-pf-%i.device
"""
# systemd gives up on a device after 90 s; a NIC on a busy machine may take longer, and libvirt would start without VFs
PATIENCE = f"""{HEADER}[Unit]
JobRunningTimeoutSec=240
"""
LAST_ESWITCH = ("mlx5_core",)  # drivers whose VFs are made before the switch leaves legacy mode; of others there must be none


@dataclass(frozen=True)
class Boot:
    """What the next boot makes of a PF, known by its MAC address. attributes: by index of the VF.

    address, name: where the PF was and how it was called when this was written; for people.
    """

    mac: str | None = None
    address: str | None = None
    name: str | None = None
    up: bool | None = None
    autoprobe: bool | None = None
    eswitch: str | None = None
    eswitch_last: bool = False
    count: int | None = None
    attributes: dict[int, dict[str, Any]] = field(default_factory=dict)


def file(key: str) -> str:
    return f"{DIRECTORY}/{key}.conf"


def instance(key: str) -> str:
    """Return the unit of a PF."""
    return f"anfitrion-sriov@{key}.service"


def every(root: Root) -> dict[str, Boot]:
    """Return what the next boot makes of each PF, by key."""
    names = [name[: -len(".conf")] for name in root.list(DIRECTORY) if name.endswith(".conf")]
    return {name: parse(root.text(file(name))) for name in names}


def find(root: Root, port: Port) -> tuple[str, Boot]:
    """Return the key of a PF, the digits of its MAC address, and what the next boot makes of it."""
    key = (port.mac or "").replace(":", "")
    return key, parse(root.text(file(key)))


def declared(vfs: dict[str, Any], count: int) -> dict[int, dict[str, Any]]:
    """Return the wanted attributes by index; those of an absent item go back to a new VF's. Raises KvmError for a wrong index."""
    found: dict[int, dict[str, Any]] = {}
    for item in vfs.get("attributes") or []:
        index = item["index"]
        if "count" in vfs and index >= count:
            raise KvmError(f"vfs.attributes[{index}]: not in 0..{count - 1}; vfs.count is {count}")
        values = {name: value for name, value in item.items() if name not in ("index", "state")}
        if "qos" in values and "vlan" not in values:
            raise KvmError(f"vfs.attributes[{index}].qos: needs vlan beside it")
        gone = {"mac": "00:00:00:00:00:00", "vlan": 0, "qos": 0}
        found[index] = gone if item.get("state") == "absent" else values
    return found


def merged(before: Boot, port: Port, vfs: dict[str, Any], up: bool | None, count: int) -> Boot:
    """Return what the next boot makes, with what this task declares over what an earlier one did."""
    attributes = {index: dict(values) for index, values in before.attributes.items()}
    for item in vfs.get("attributes") or []:
        values = {name: value for name, value in item.items() if name not in ("index", "state")}
        if item.get("state") == "absent":
            attributes.pop(item["index"], None)
        else:
            attributes[item["index"]] = {**attributes.get(item["index"], {}), **values}
    number = vfs.get("count", before.count)
    return Boot(
        mac=port.mac,
        address=port.address,
        name=port.name,
        up=before.up if up is None else up,
        autoprobe=vfs.get("autoprobe", before.autoprobe),
        eswitch=vfs.get("eswitch", before.eswitch),
        eswitch_last=port.driver in LAST_ESWITCH,
        count=number,
        attributes={k: v for k, v in sorted(attributes.items()) if v and k < (count if number is None else number)},
    )


def link_words(wanted: dict[str, Any], now: dict[str, Any]) -> dict[str, list[str]]:
    """Return the words of C(ip link set dev PF vf N …) for each attribute; a VLAN and its priority go together."""
    on_off = {True: "on", False: "off"}
    words: dict[str, list[str]] = {}
    if "mac" in wanted:
        words["mac"] = ["mac", wanted["mac"]]
    if "vlan" in wanted:
        qos = wanted.get("qos", now.get("qos", 0) if wanted["vlan"] else 0)
        words["vlan/qos"] = ["vlan", str(wanted["vlan"]), *(["qos", str(qos)] if wanted["vlan"] else [])]
    words.update({name: [name, on_off[wanted[name]]] for name in ("spoofchk", "trust") if name in wanted})
    if "link_state" in wanted:
        words["link_state"] = ["state", wanted["link_state"]]
    words.update({name: [name, str(wanted[name])] for name in ("max_tx_rate", "min_tx_rate") if name in wanted})
    return words


def text(boot: Boot) -> str:
    """Return the file of a PF: what it must be, and what is done, in order."""
    lines = [f"mac {boot.mac}", f"address {boot.address}", f"name {boot.name}"]
    switch = [f"eswitch {boot.eswitch}"] if boot.eswitch else []
    if boot.up is not None:
        lines.append(f"link {'up' if boot.up else 'down'}")
    if boot.autoprobe is not None:
        lines.append(f"autoprobe {int(boot.autoprobe)}")
    count = [f"count {boot.count}"] if boot.count is not None else []
    lines += [*count, *switch] if boot.eswitch_last else [*switch, *count]
    for index, values in boot.attributes.items():
        lines += [f"vf {index} {' '.join(words)}" for words in link_words(values, {}).values()]
    return HEADER + "".join(f"{line}\n" for line in lines)


def parse(content: str | None) -> Boot:
    """Return what such a file says."""
    told: dict[str, str] = {}
    attributes: dict[int, dict[str, Any]] = {}
    for line in (content or "").splitlines():
        word, *rest = line.split() or [""]
        if word == "vf":
            pairs = zip(rest[1::2], rest[2::2])
            attributes.setdefault(int(rest[0]), {}).update({_name(n): _value(n, v) for n, v in pairs})
        elif rest and not word.startswith("#"):
            told[word] = rest[0]
    order = list(told)
    return Boot(
        mac=told.get("mac"),
        address=told.get("address"),
        name=told.get("name"),
        up=told["link"] == "up" if "link" in told else None,
        autoprobe=told["autoprobe"] == "1" if "autoprobe" in told else None,
        eswitch=told.get("eswitch"),
        eswitch_last={"eswitch", "count"} <= set(told) and order.index("eswitch") > order.index("count"),
        count=int(told["count"]) if "count" in told else None,
        attributes=attributes,
    )


def _name(word: str) -> str:
    return "link_state" if word == "state" else word


def _value(word: str, value: str) -> Any:
    if word in ("spoofchk", "trust"):
        return value == "on"
    return value if word in ("mac", "state") else int(value)


def part(root: Root, key: str, before: Boot, boot: Boot | None) -> Part:
    """Return what it takes that the next boot makes this of a PF; None: nothing."""
    if boot is not None and not _shown(boot):
        return Part()
    if boot is not None and not key:
        raise KvmError("vfs: the physical function has no MAC address to be known by at the next boot")
    others = {name: one for name, one in every(root).items() if name != key}
    needed = boot is not None or bool(others)
    told = persisted_changes("", _shown(before), _shown(boot) if boot else {})
    device = f"anfitrion-pf-{key}.device"
    wanted_by, shared = ("multi-user.target", device), boot is None and bool(others)
    unit = unit_part(root, instance(key), UNIT_TEXT if boot else None, wanted_by, UNIT, shared=shared)
    all_of_them = {**others, **({key: boot} if boot else {})}
    parts = [
        file_part(root, f"{UNITS}/{device}.d/50-anfitrion.conf", PATIENCE if boot else None),
        file_part(root, SCRIPT, SCRIPT_TEXT if needed else None, mode=0o755),
        file_part(root, RULES, rules_text(all_of_them) if needed else None),
        file_part(root, file(key), text(boot) if boot else None, told),
        unit,
    ]
    return Part(tuple(c for one in parts for c in one.changes), tuple(s for one in parts for s in one.steps))


def rules_text(boots: dict[str, Boot]) -> str:
    """Return the udev rules that give each PF a device unit of its own, whatever its interface is called."""
    lines = [
        f'ACTION!="remove", SUBSYSTEM=="net", SUBSYSTEMS=="pci", ATTR{{address}}=="{boot.mac}", '
        f'TAG+="systemd", ENV{{SYSTEMD_ALIAS}}+="/anfitrion/pf/{key}"\n'
        for key, boot in sorted(boots.items())
    ]
    return HEADER + "".join(lines)


def _shown(boot: Boot) -> dict[str, str]:
    values = {"up": boot.up, "vfs.autoprobe": boot.autoprobe, "vfs.eswitch": boot.eswitch, "vfs.count": boot.count}
    shown = {name: str(value).lower() for name, value in values.items() if value is not None}
    for index, attributes in boot.attributes.items():
        shown.update({f"vfs.attributes[{index}].{name}": str(value).lower() for name, value in attributes.items()})
    return shown
