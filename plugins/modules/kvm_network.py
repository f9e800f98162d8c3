#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_network."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_network
short_description: Virtual networks of a KVM host
description:
  - Defines virtual networks, changes what exists, makes them active and inactive, and removes them.
  - Options that are not given are not managed. Items of a list that are not mentioned stay.
  - An active network takes DHCP hosts and ranges, DNS hosts, texts and services, port groups and the interfaces of a macvtap network at
    once, and guests on it lose no packet. Everything else waits for its next start; RV(pending_restart) names it on every run
    until then, and RV(cuts_off) the running guests that a restart cuts off for some seconds. O(restart) does it, and puts the
    interfaces of these guests back on the bridge.
  - A subnet that overlaps another network or a route of the host is refused before anything is defined.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.network
  - anfitrion.kvm.attributes
requirements:
  - python3-libvirt and python3-lxml on the host
  - libvirt 8.0 or newer on the host
seealso:
  - module: anfitrion.kvm.kvm_network_info
  - module: anfitrion.kvm.kvm_domain
  - module: anfitrion.kvm.kvm_hostdev
"""

EXAMPLES = r"""
- name: Have a network behind the host's address, with a fixed address for one guest
  anfitrion.kvm.kvm_network:
    name: lab
    state: active
    autostart: true
    mode: nat
    domain: {name: lab.example.org, local_only: true}
    ips:
      - address: 192.168.150.1
        prefix: 24
        dhcp:
          ranges: [{start: 192.168.150.100, end: 192.168.150.199}]
          hosts: [{mac: "52:54:00:00:96:05", name: db01, ip: 192.168.150.5}]

- name: Have three networks in one task
  anfitrion.kvm.kvm_network:
    defaults: {state: active, autostart: true}
    networks:
      - {name: routed, mode: routed, ips: [{address: 192.168.151.1, prefix: 24}]}
      - {name: backend, mode: isolated, ips: [{address: 192.168.152.1, prefix: 24}]}
      - {name: fast, vf_pool: {pf: ens1f0}}

- name: Take a fixed address away again, while the network is active
  anfitrion.kvm.kvm_network:
    name: lab
    ips:
      - address: 192.168.150.1
        dhcp: {hosts: [{mac: "52:54:00:00:96:05", state: absent}]}

- name: Have classes of guests' interfaces, a service in the DNS and an NTP server in the DHCP
  anfitrion.kvm.kvm_network:
    name: lab
    portgroups:
      - {name: bulk, bandwidth: {inbound: {average: 1000}, outbound: {average: 1000}}}
      - {name: usual, default: true}
    dns:
      srvs: [{service: ldap, protocol: tcp, domain: lab.example.org, target: db01.lab.example.org, port: 389}]
    dnsmasq_options: ["dhcp-option=option:ntp-server,192.168.150.1"]

- name: Change the MTU now, although guests are running
  anfitrion.kvm.kvm_network:
    name: lab
    mtu: 9000
    restart: true

- name: Remove a network that no running guest is on
  anfitrion.kvm.kvm_network:
    name: backend
    state: absent
"""

RETURN = r"""
changes:
  description:
    - What differs. C(how) tells how it is taken, V(define), V(live), V(next_boot), V(restart), V(start), V(stop), V(remove).
    - In the list form, in each of RV(results).
  returned: success
  type: list
  elements: dict
  sample: [{"option": "mtu", "before": 1500, "after": 9000, "how": "next_boot"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["define network lab"]
pending_restart:
  description: Options that the active network takes only at its next start, also those of earlier tasks.
  returned: success
  type: list
  elements: str
  sample: ["mtu"]
cuts_off:
  description: Running guests that a restart for RV(pending_restart) would cut off for some seconds.
  returned: when something waits for a restart and guests are on the network
  type: list
  elements: str
  sample: ["db01"]
results:
  description: One entry for each network, in the list form.
  returned: when O(networks) is given
  type: list
  elements: dict
  sample: [{"name": "lab", "changed": true, "changes": [], "steps": [], "pending_restart": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.network import NETWORK
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(NETWORK)


if __name__ == "__main__":
    main()
