#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_bridge."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_bridge
short_description: A bridge of the host onto its LAN, with a timed way back
description:
  - Puts a NIC of the host, a bond of NICs, or a VLAN of either into a bridge, so that guests are in the LAN themselves. What the NIC is configured
    with, addresses, routes, DNS, DHCP, moves to the bridge, which gets the MAC address of the NIC.
  - It is done by whoever configures the host's network, ifupdown, systemd-networkd or NetworkManager, and so holds over a reboot. What netplan
    makes of its own files goes to one of the last two and is taken from there; the files of netplan are left alone.
  - A mistake here can make the host unreachable. Before anything is changed, files, addresses and routes are kept aside and a timer is set.
    Unless M(anfitrion.kvm.kvm_confirm) comes in time the host goes back to what it was; it also does when it is started anew before that.
    So follow this task with M(ansible.builtin.meta) C(reset_connection) and M(anfitrion.kvm.kvm_confirm), or use the role
    anfitrion.kvm.network, which does that.
  - It waits until the bridge has the addresses and default routes that the NIC had. If that does not come to pass, everything is put back at once.
  - One bridge a task, for each is confirmed by itself. What a bridge consists of cannot be changed while it is there.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.bridge
  - anfitrion.kvm.attributes
requirements:
  - iproute2 on the host, and ifupdown (Debian's, not ifupdown2), systemd-networkd or NetworkManager
seealso:
  - module: anfitrion.kvm.kvm_bridge_info
  - module: anfitrion.kvm.kvm_confirm
  - module: anfitrion.kvm.kvm_network
"""

EXAMPLES = r"""
- name: Have a bridge on the NIC that the host is reached by
  anfitrion.kvm.kvm_bridge:
    name: br0
    ports: [eth0]
  register: bridge

- name: Leave the connection that was there before
  ansible.builtin.meta: reset_connection

- name: Let the bridge stay, now that the host has answered anew
  anfitrion.kvm.kvm_confirm:
    token: "{{ bridge.confirm.token }}"
  when: bridge.confirm.token is defined

- name: Have guests in VLAN 100 of two NICs that are one, while the host's own addresses stay untagged
  anfitrion.kvm.kvm_bridge:
    name: br100
    ports: [eth0, eth1]
    bond: {name: bond0, mode: 802.3ad}
    vlan: 100

- name: Give the NIC back
  anfitrion.kvm.kvm_bridge:
    name: br0
    state: absent
"""

RETURN = r"""
confirm:
  description:
    - What M(anfitrion.kvm.kvm_confirm) is to be given, C(token), and within how many C(seconds).
    - Not there if nothing was changed, and in check mode.
  returned: changed
  type: dict
  sample: {"token": "network-0123456789ab", "seconds": 120}
manager:
  description: Who configures the bridge.
  returned: success
  type: str
  sample: networkd
changes:
  description: What differs.
  returned: success
  type: list
  elements: dict
  sample: [{"option": "ports", "before": null, "after": ["eth0"], "how": "live"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["have the host's network put back in 120 s unless that is confirmed", "write /etc/systemd/network/00-anfitrion-br0.netdev"]
pending_restart:
  description: Always empty.
  returned: success
  type: list
  elements: str
  sample: []
reboot_required:
  description: Always false.
  returned: changed
  type: bool
  sample: false
reboot_reasons:
  description: Always empty.
  returned: changed
  type: list
  elements: str
  sample: []
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._node.bridge import BRIDGES
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(BRIDGES)


if __name__ == "__main__":
    main()
