#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_host_firewall."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_host_firewall
short_description: Deny what reaches the host or goes through it unless it is allowed
description:
  - Ends the input and forward chains of the nftables table of M(anfitrion.kvm.kvm_firewall), C(inet anfitrion), with a drop of everything
    that nothing allows, for IPv4 and IPv6, whichever packet filter libvirt uses. Tables of others are not touched and go on to judge too.
  - Allowed into the host are what O(allow) says, answers, the loopback interface, ping, the ICMP errors that find the path MTU, what IPv6
    needs to find neighbours and routers, answers of DHCP servers, and DHCP and DNS of guests in libvirt's networks. Guests of a network
    of M(anfitrion.kvm.kvm_firewall) reach of the host what its C(host) says; one that does not say it, DHCP and DNS.
  - Allowed through the host are answers, what the rules and forwards of M(anfitrion.kvm.kvm_firewall) let through, what libvirt lets into
    and out of its networks of mode nat, routed and isolated, and interfaces that O(through) names. A network that libvirt gets later is allowed
    when the task runs again.
  - Rules that could lock the operator out are first only loaded. Before that, a timer is armed on the host that brings the rules from before
    back after O(rollback_after) seconds. M(anfitrion.kvm.kvm_confirm) with the token in RV(confirm) ends the timer and persists the rules.
    It must come by an SSH connection that was made after they were loaded, so there is C(meta) with C(reset_connection) between. The role
    P(anfitrion.kvm.network#role) does that. Until then a reboot, too, has the rules from before.
  - Rules that would not let a new connection in like that which Ansible is using are refused; see O(cut_allowed).
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.host_firewall
  - anfitrion.kvm.attributes
requirements:
  - nftables, iproute2 and util-linux on the host
seealso:
  - module: anfitrion.kvm.kvm_host_firewall_info
  - module: anfitrion.kvm.kvm_confirm
  - module: anfitrion.kvm.kvm_firewall
"""

EXAMPLES = r"""
- name: Let SSH in from the management network, and nothing else
  anfitrion.kvm.kvm_host_firewall:
    allow:
      - {name: ssh, port: 22, sources: [192.0.2.0/24]}
      - {name: migration, port: 49152-49215, sources: [192.0.2.0/24]}
  register: deny

- name: Close the connection that was there before the rules
  ansible.builtin.meta: reset_connection

- name: Keep the rules, since the host still answers
  anfitrion.kvm.kvm_confirm:
    token: "{{ deny.confirm.token }}"
  when: deny.confirm is defined

- name: Deny only what goes through the host, and leave docker's networks to docker
  anfitrion.kvm.kvm_host_firewall:
    deny: [forward]
    through: [docker0]

- name: Take the default deny away
  anfitrion.kvm.kvm_host_firewall:
    state: absent
"""

RETURN = r"""
confirm:
  description: What M(anfitrion.kvm.kvm_confirm) is to be given, C(token), and within how many C(seconds).
  returned: when rules have been loaded that are to be confirmed
  type: dict
  sample: {"token": "firewall-0f1e2d3c4b5a", "seconds": 60}
changes:
  description:
    - What differs. C(how) tells how it is taken, V(live) in the running kernel, V(next_boot) in a file that the next boot reads.
    - Options that begin with V(persisted) are what the next boot does.
  returned: success
  type: list
  elements: dict
  sample: [{"option": "deny", "before": null, "after": ["forward", "input"], "how": "live"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["have the rules from before come back in 60 s unless these are confirmed", "load the packet rules"]
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
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._node.host_firewall import HOST
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(HOST)


if __name__ == "__main__":
    main()
