#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_network_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_network_info
short_description: What the virtual networks of a KVM host are
description:
  - Tells of networks in the shape that M(anfitrion.kvm.kvm_network) takes. Where options do not say all of a network, C(xml) is its
    whole definition.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.network.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_network
"""

EXAMPLES = r"""
- name: Read the definition of one network
  anfitrion.kvm.kvm_network_info:
    name: lab
  register: found

- name: Read which guests have which addresses
  anfitrion.kvm.kvm_network_info:
    leases: true
  register: found
"""

RETURN = r"""
networks:
  description: Options of each network, sorted by name.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "lab", "state": "active", "autostart": true, "mode": "nat", "ips": [{"address": "192.168.150.1", "prefix": 24}]}]
leases:
  description: Leases of the DHCP server of each active network, by the name of the network; C(expires) in seconds since 1970.
  returned: when O(leases) is true
  type: dict
  sample: {"lab": [{"mac": "52:54:00:00:96:05", "ip": "192.168.150.5", "prefix": 24, "name": "db01", "expires": 1790000000}]}
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.network import NETWORK
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(NETWORK)


if __name__ == "__main__":
    main()
