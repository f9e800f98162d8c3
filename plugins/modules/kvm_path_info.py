#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_path_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_path_info
short_description: Which hop of a KVM host stops a packet
description:
  - Follows the first packet of a connection, and its answer, from a guest, an address outside or the host itself through the host, and names
    the first link, parameter of the kernel, route or packet rule that stops it.
  - Links and bridge ports are looked at, with what libvirt says of the guest's interface. For routes, forwarding and the reverse path filter the
    kernel itself is asked. Rules of nftables and of both kinds of iptables are evaluated in the order of hooks and priorities, with policies,
    sets, verdict maps and translations (port forwards, masquerade), those of libvirt, docker, firewalld and bridge filters included.
  - A rule that asks for what cannot be told from outside (a rate, the content of a packet, an ipset) is not guessed. It is told as a doubt, and the
    verdict then is V(may_be_stopped).
  - What the outside, the guest's own packet filter, programs of traffic control and XDP do is not seen. The host is taken for the sender's gateway
    where it has an address on the sender's bridge.
  - It only reads, sends nothing and loads no module of the kernel.
  - It is a module of its own, and no option of M(anfitrion.kvm.kvm_network_info), for it asks about a packet and not about networks - most of what is
    in its way belongs to none of libvirt's networks - and so that no task that reads networks takes the evaluation of rules along.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.path.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
  - iproute2, and nft and iptables where the host has rules of them
seealso:
  - module: anfitrion.kvm.kvm_firewall
  - module: anfitrion.kvm.kvm_network_info
"""

EXAMPLES = r"""
- name: Ask why a guest does not reach a web server
  anfitrion.kvm.kvm_path_info:
    guest: db01
    to: 203.0.113.2
    port: 443
  register: way

- name: Ask whether a machine outside reaches a forwarded port
  anfitrion.kvm.kvm_path_info:
    source: 203.0.113.2
    to: 203.0.113.1
    port: 8080
  register: way

- name: Stop where it does not
  ansible.builtin.assert:
    that: way.path.verdict == 'passes'
    fail_msg: "{{ way.path.stopped_by or way.path.doubts }}"
"""

RETURN = r"""
path:
  description: The way of the packet.
  returned: success
  type: dict
  contains:
    verdict:
      description: V(passes), V(stopped), or V(may_be_stopped) where something cannot be told.
      type: str
      sample: stopped
    stopped_by:
      description: The hop that stops it; null if none surely does.
      type: dict
      sample: {"at": "forward", "verdict": "stops", "why": "dropped by ip filter FORWARD: policy drop (docker and ufw set it)"}
    doubts:
      description: The hops that may stop or translate it, and the rule that cannot be evaluated.
      type: list
      elements: dict
      sample: []
    hops:
      description: Every hop in order up to the one that stops it, C(verdict) of each is V(passes), V(may_stop) or V(stops).
      type: list
      elements: dict
      sample: [{"at": "guest db01 vnet0", "verdict": "passes", "why": "52:54:00:00:96:05, the link is up"}]
    sent:
      description: What was asked for, with the source that was found.
      type: dict
      sample: {"source": "192.168.60.10", "to": "203.0.113.2", "proto": "tcp", "port": 443}
    arrives:
      description: The packet as it leaves the host or is delivered there, after every translation; null if it is stopped.
      type: dict
      sample: {"source": "203.0.113.1", "to": "203.0.113.2", "port": 443}
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.path import WAY
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(WAY)


if __name__ == "__main__":
    main()
