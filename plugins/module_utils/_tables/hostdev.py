# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kvm_hostdev: the host's side of devices that guests get. They are no XML: `_node` reads and writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import (
    INTERFACE,
    MAC,
    PCI,
    TEXT,
    WORD,
    Choice,
    Codec,
    Flag,
    Integer,
    Pattern,
)

BIT = Flag(true="1", false="0")


@dataclass(frozen=True)
class Told(Codec):
    """Facts that an info module prints and that nobody can ask for."""

    type: ClassVar[str] = "dict"

    def normal(self, value: Any) -> Any:
        return value


ATTRIBUTES = f.Items(
    "attributes",
    "",
    ("index",),
    "What the PF fixes for each VF. VFs and attributes that are not named stay as they are; "
    "of a VF that a guest holds nothing is changed, since libvirt sets it for the guest.",
    (
        f.Field("index", None, Integer(high=65535), "Number of the VF, from 0.", required=True),
        f.Field("mac", None, MAC, "MAC address that the VF gets."),
        f.Field("vlan", None, Integer(high=4094), "VLAN that the VF is put into, without the guest seeing it; V(0) for none."),
        f.Field("qos", None, Integer(high=7), "Priority in that VLAN."),
        f.Field("spoofchk", None, BIT, "Whether frames with another source MAC address are dropped."),
        f.Field("trust", None, BIT, "Whether the guest may set promiscuous mode and further MAC addresses."),
        f.Field("link_state", None, Choice(words=("auto", "enable", "disable")), "Link that the VF sees; V(auto) is that of the PF."),
        f.Field("min_tx_rate", None, Integer(), "Guaranteed bandwidth in Mbit/s; V(0) for none."),
        f.Field("max_tx_rate", None, Integer(), "Bandwidth limit in Mbit/s; V(0) for none."),
    ),
)  # fmt: skip

SELECT = f.Section(
    "select",
    None,
    "A device by what it is, instead of O(address): another card in the host moves addresses. Everything that is stated must hold.",
    (
        f.Field("id", None, Pattern(pattern="[0-9a-f]{4}:[0-9a-f]{4}", says="vendor:product in hexadecimal, such as 8086:10c9"),
                "Vendor and product, as C(lspci -n) prints them."),
        f.Field("class", None, Pattern(pattern="0x[0-9a-f]{2,6}|storage|nvme|network|display|audio|usb|accelerator",
                                       says="a class such as nvme or network, or the beginning of its number, 0x0108"),
                "Class of the device: V(storage), V(nvme), V(network), V(display), V(audio), V(usb), V(accelerator), or how its"
                " number begins, as V(0x0108)."),
        f.Field("driver", None, WORD, "The host's own driver of the device, as V(nvme); also while C(vfio-pci) holds it."),
        f.Field("numa_node", None, Integer(high=1023), "NUMA node that the device is at."),
        f.Field("pf", None, INTERFACE, "Physical function of a VF."),
        f.Field("index", None, Integer(high=65535), "Number of the VF of O(select.pf)."),
        f.Field("serial", None, TEXT, "Serial number of an NVMe disk, or the PCIe device serial number."),
        f.Field("mac", None, MAC, "MAC address of a network card."),
        f.Field("every", None, BIT, "Whether all devices are meant, when several are as stated; else that is an error."),
    ),
)  # fmt: skip

HOSTDEV = f.Table(
    "device",
    "",
    "The host's side of a device for guests.",
    (
        f.Field("pf", None, INTERFACE, "Network interface of a physical function, as V(enp1s0)."),
        f.Field("address", None, PCI, "PCI address of a device, as V(0000:01:00.0); of a physical function instead of O(pf)."),
        SELECT,
        f.Field("state", None, Choice(words=("present", "absent")),
                "V(absent) removes all VFs, gives the device back to its own driver, and forgets it at boot."),
        f.Field("up", None, BIT, "Whether the interface of the PF is up. It is brought up for O(vfs.count) unless this is V(false)."),
        f.Section("vfs", None, "Virtual functions (SR-IOV) of the PF.", (
            f.Field("count", None, Integer(high=65535), "How many VFs there are. The kernel changes it only by way of 0."),
            f.Field("autoprobe", None, BIT, "Whether new VFs are bound to the host's own driver. V(false) leaves them for guests."),
            f.Field("eswitch", None, Choice(words=("legacy", "switchdev")), "Mode of the card's embedded switch, where its driver has one."
                    " Another mode removes all VFs first."),
            ATTRIBUTES,
        )),
        f.Field("driver", None, Choice(words=("vfio-pci", "native")),
                "V(vfio-pci) takes the device at O(address) from the host and holds it for guests, V(native) gives it back."),
        f.Field("allow_disruption", None, BIT,
                "Must be V(true) to change O(vfs.count) from one number above 0 to another, and to remove VFs that the host itself "
                "uses or a stopped guest is defined with: all VFs go and come back. Also to take the screen that the host booted with."
                " VFs that a running guest holds are only removed with O(drain)."),
        f.Field("drain", None, BIT,
                "Whether running guests give their VFs back when O(vfs.count) or O(vfs.eswitch) changes, and get them again after it. Without it"
                " such a change is refused while a guest holds a VF."),
        f.Field("drain_by", None, Choice(words=("detach", "shutdown")),
                "How: V(detach), if not given, unplugs the VFs from guests that go on running; V(shutdown) shuts the guests down and starts"
                " them again."),
        f.Field("drain_timeout", None, Integer(low=1, high=86400), "Seconds that a guest gets for it, 120 if not given."),
        f.Field("facts", None, Told(), "What M(anfitrion.kvm.kvm_hostdev_info) tells besides; taken and ignored, so that its output is a task."),
    ),
)  # fmt: skip
