#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_firewall."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_firewall
short_description: Packet rules of the guests' networks
description:
  - Gives networks address translation, routing, isolation and port forwards, in one nftables table of our own, C(inet anfitrion).
  - It is meant for networks to which libvirt adds no rules, that is for C(mode=open) of M(anfitrion.kvm.kvm_network). So the rules are the same
    with every firewall back end of libvirt, and libvirt never puts its own before them. Forwards into a network of libvirt's own mode
    nat or route work too where libvirt uses iptables, with O(mode=libvirt).
  - The table is replaced as a whole in one transaction. Tables of others are never touched, with one exception. Where the C(FORWARD) of iptables
    drops what it does not know (docker does that), or holds libvirt's own reject, one chain of ours, C(ANFITRION_FWD), is jumped to first
    there and accepts what our table has judged already.
  - Where firewalld is installed, the bridges go into a zone of their own there, C(anfitrion), that lets pass what our table has judged. A running
    firewalld reloads once for it.
  - The rules in the kernel are compared in the form in which the kernel tells them, and the jump by its place; a rule that somebody
    changed or flushed comes back.
  - Networks that a task does not name keep their rules, and so do forwards of a network that are not named.
  - A forward that is taken away ends the connections that came by it.
  - For the boot it writes C(/etc/anfitrion.d/firewall.nft) with C(anfitrion-firewall.service), which loads the rules before libvirt starts and
    again after C(nftables.service) or C(firewalld.service) flushed them, and C(net.ipv4.ip_forward) into
    C(/etc/sysctl.d/90-anfitrion-kvm.conf). Four times a minute C(anfitrion-firewall.timer) sees that the rules are still in the kernel.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.firewall
  - anfitrion.kvm.attributes
requirements:
  - nftables and util-linux on the host
seealso:
  - module: anfitrion.kvm.kvm_firewall_info
  - module: anfitrion.kvm.kvm_host_firewall
  - module: anfitrion.kvm.kvm_network
"""

EXAMPLES = r"""
- name: Let guests out and the web guest in
  anfitrion.kvm.kvm_firewall:
    name: vms
    bridge: virbr1
    subnet: 192.168.60.0/24
    mode: nat
    forwards:
      - {name: web, port: 8080, to_address: 192.168.60.10, to_port: 80}
      - {name: ssh, port: 2222, to_address: 192.168.60.10, to_port: 22, sources: [10.0.0.0/8], hairpin: false, host_local: false}

- name: Forward a port into a network of libvirt's mode nat, and keep its guests from the host
  anfitrion.kvm.kvm_firewall:
    name: default
    bridge: virbr0
    subnet: 192.168.122.0/24
    mode: libvirt
    host: services
    forwards: [{name: web, port: 80, to_address: 192.168.122.10}]

- name: Have a routed and an isolated network
  anfitrion.kvm.kvm_firewall:
    networks:
      - {name: lan, bridge: virbr2, subnet: 192.168.61.0/24, mode: routed, outbound: eth0}
      - {name: cell, bridge: virbr3, subnet: 192.168.62.0/24, mode: isolated}

- name: Take one forward away
  anfitrion.kvm.kvm_firewall:
    name: vms
    forwards: [{name: ssh, state: absent}]

- name: Take all rules of a network away
  anfitrion.kvm.kvm_firewall:
    name: cell
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
  sample: [{"option": "mode", "before": "nat", "after": "routed", "how": "live"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["load the packet rules"]
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
results:
  description: One entry for each network, in the list form.
  returned: when O(networks) is given
  type: list
  elements: dict
  sample: [{"name": "vms", "changed": false, "changes": [], "steps": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._node.firewall import NETWORKS
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(NETWORKS)


if __name__ == "__main__":
    main()
