#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_hostdev."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_hostdev
short_description: The host's side of devices for guests
description:
  - Makes SR-IOV virtual functions (VFs), sets what their physical function (PF) fixes for them, and hands whole PCI devices to C(vfio-pci),
    now and at every boot.
  - Giving a device to a guest is the part of M(anfitrion.kvm.kvm_domain).
  - The number of VFs is changed only when no guest holds one, or with O(drain). Who holds a VF is taken from libvirt (guests that run or are
    stopped, networks that hand VFs out), from the processes that have it open, and from what the host does with it.
  - VFs lose their attributes when they are made again; all of them, also those of earlier tasks, are set again. When something fails, the
    old number and attributes come back, and guests get their VFs back.
  - A VF that a guest holds is left alone, since libvirt sets its attributes and puts the old ones back later; RV(in_use_by) names the guest.
  - A device is taken from the host only when its IOMMU group can be given as a whole, and when the host does not need it for a mounted disk,
    the default route, or the connection of Ansible, be it through a bridge, a bond, LVM or RAID on top of the device.
  - For the boot it writes C(/etc/anfitrion.d/sriov/), C(anfitrion-sriov@.service), which waits for the interface of the PF and comes before
    libvirt, C(/usr/local/lib/anfitrion/), and C(60-anfitrion-vfio.rules) and C(99-zz-anfitrion-sriov.rules) in C(/etc/udev/rules.d/). A PF is
    known there by its permanent MAC address, so another name or slot changes nothing.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.hostdev
  - anfitrion.kvm.attributes
requirements:
  - iproute2 on the host
seealso:
  - module: anfitrion.kvm.kvm_hostdev_info
  - module: anfitrion.kvm.kvm_domain
"""

EXAMPLES = r"""
- name: Make four virtual functions with MAC addresses of their own
  anfitrion.kvm.kvm_hostdev:
    pf: enp1s0
    vfs:
      count: 4
      attributes:
        - {index: 0, mac: "52:54:00:00:01:00"}
        - {index: 1, mac: "52:54:00:00:01:01", vlan: 100, spoofchk: true}
        - {index: 2, mac: "52:54:00:00:01:02", trust: true}
        - {index: 3, mac: "52:54:00:00:01:03"}

- name: Change the number of virtual functions, which takes all of them away for a moment
  anfitrion.kvm.kvm_hostdev:
    pf: enp1s0
    vfs: {count: 6}
    allow_disruption: true

- name: Change it while guests have some; they get theirs back when the new ones are there
  anfitrion.kvm.kvm_hostdev:
    pf: enp1s0
    vfs: {count: 7}
    drain: true
    drain_by: detach

- name: Hand an NVMe disk to guests, wherever it sits
  anfitrion.kvm.kvm_hostdev:
    select: {class: nvme, serial: S5H9NS0N700123}
    driver: vfio-pci

- name: Keep all VFs of a physical function for guests
  anfitrion.kvm.kvm_hostdev:
    select: {pf: enp1s0, every: true}
    driver: vfio-pci

- name: Hand a card with two functions to guests
  anfitrion.kvm.kvm_hostdev:
    defaults: {driver: vfio-pci}
    devices:
      - {address: "0000:03:00.0"}
      - {address: "0000:03:00.1"}

- name: Remove all virtual functions and forget them at boot
  anfitrion.kvm.kvm_hostdev:
    pf: enp1s0
    state: absent
"""

RETURN = r"""
changes:
  description:
    - What differs. C(how) tells how it is taken, V(live) in the running kernel, V(next_boot) in a file that the next boot reads.
    - Options that begin with V(persisted) are what the next boot does.
    - In the list form, in each of RV(results).
  returned: success
  type: list
  elements: dict
  sample: [{"option": "vfs.count", "before": 0, "after": 4, "how": "live"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["make 4 VFs on enp1s0"]
pending_restart:
  description: Options that take effect only when guests, or the host, start again.
  returned: success
  type: list
  elements: str
  sample: []
reboot_required:
  description: Whether something that is declared takes effect only at the next boot. It stays true until that boot.
  returned: success
  type: bool
  sample: false
reboot_reasons:
  description: Why.
  returned: success
  type: list
  elements: str
  sample: []
in_use_by:
  description: VFs that are held, and by whom. Their attributes are not compared.
  returned: when O(pf) or O(vfs) is given
  type: dict
  sample: {"0000:01:10.0": ["guest db01"]}
addresses:
  description: PCI addresses of the devices that O(select) means.
  returned: when O(select) is given
  type: list
  elements: str
  sample: ["0000:03:00.0"]
results:
  description: One entry for each device, in the list form.
  returned: when O(devices) is given
  type: list
  elements: dict
  sample: [{"pf": "enp1s0", "changed": false, "changes": [], "steps": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.devices import DEVICES
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(DEVICES)


if __name__ == "__main__":
    main()
