#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_hostdev_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_hostdev_info
short_description: Which devices a host has for guests
description:
  - Tells of every physical function (PF) with its virtual functions (VFs), and of every device that C(vfio-pci) holds, in the shape that
    M(anfitrion.kvm.kvm_hostdev) takes.
  - C(facts) of each tells the PCI addresses of the VFs, their drivers, IOMMU groups, NUMA nodes, and whose they are, C(in_use_by) running guests,
    processes and the host, C(defined_in) stopped guests. C(networks) hand the VFs of a PF out.
  - For the one that is named, they also tell what goes from the host with it, C(group), C(host_needs), C(boot_screen), and why it would be
    refused, C(refused).
  - USB devices, disks and partitions, and what makes mediated devices, are told beside them.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.hostdev.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - iproute2 on the host
seealso:
  - module: anfitrion.kvm.kvm_hostdev
"""

EXAMPLES = r"""
- name: Find the physical functions of this host
  anfitrion.kvm.kvm_hostdev_info:
  register: host

- name: Tell of one device
  anfitrion.kvm.kvm_hostdev_info:
    name: "0000:01:00.0"
"""

RETURN = r"""
devices:
  description: Each PF, and each device that C(vfio-pci) holds.
  returned: success
  type: list
  elements: dict
  sample:
    - pf: enp1s0
      up: true
      vfs: {count: 1, autoprobe: true, attributes: [{index: 0, mac: "52:54:00:00:01:00"}]}
      facts: {address: "0000:01:00.0", total_vfs: 7, driver: igb, iommu_group: "8", numa_node: null}
usb:
  description: USB devices without the hubs, and what the host does with each.
  returned: success
  type: list
  elements: dict
  sample: [{port: "1-2", vendor: "0x46f4", product: "0x0001", bus: 1, device: 3, serial: U1, name: USB DISK, drivers: [usb-storage], host_needs: []}]
block:
  description: Disks with their partitions, paths that survive another order of disks, and what the host does with each.
  returned: success
  type: list
  elements: dict
  sample:
    - path: /dev/nvme0n1
      by_id: [/dev/disk/by-id/nvme-S1]
      size: 1TiB
      serial: S1
      pci: "0000:03:00.0"
      host_needs: []
      partitions: [{path: /dev/nvme0n1p1, by_id: [], size: 512GiB, host_needs: [mounted on /srv]}]
mediated:
  description: Kinds of mediated device that devices of this host can make.
  returned: success
  type: list
  elements: dict
  sample: []
ledger_unknown:
  description: Why libvirt could not be asked which guests have the devices; none, when it could, or when the host has no libvirt.
  returned: success
  type: str
  sample: null
iommu:
  description: Whether an IOMMU is at work, its units, and how many groups of devices it keeps apart.
  returned: success
  type: dict
  sample: {active: true, units: [dmar0], groups: 23}
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.devices import DEVICES
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(DEVICES)


if __name__ == "__main__":
    main()
