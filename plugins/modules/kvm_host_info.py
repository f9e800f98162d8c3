#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_host_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_host_info
short_description: What a KVM host has, how full it is, and what comes back after a reboot
description:
  - Tells CPUs, memory, NUMA nodes, huge pages, IOMMU, settings of the kernel and its command line in one call.
  - RV(host.capacity) holds all guests against the host and each NUMA node. Huge pages and what the host keeps for itself (4 GiB or 5 %, at
    most a quarter) are taken off first; memory of guests with devices, locked or preallocated memory is never shared; what KSM saves does
    not count.
  - RV(host.boot) foretells from what is defined and persisted what the next boot of the host starts.
  - RV(host.guests) tells where the memory of each running guest really is, and what KSM does for it.
  - It only reads. No service is started, no module loaded.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.host.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_tuning
  - module: anfitrion.kvm.kvm_placement
"""

EXAMPLES = r"""
- name: Read this host
  anfitrion.kvm.kvm_host_info:
  register: info

- name: Stop before a reboot after which something would be missing
  ansible.builtin.assert:
    that: info.host.boot | rejectattr('verdict', 'equalto', 'starts') | length == 0
    fail_msg: "{{ info.host.boot | rejectattr('verdict', 'equalto', 'starts') }}"
"""

RETURN = r"""
host:
  description: The facts.
  returned: success
  type: dict
  contains:
    cpus:
      description: Number of CPUs online.
      type: int
    isolated_cpus:
      description: CPUs that the scheduler leaves alone.
      type: list
      elements: int
    memory:
      description: Bytes in all, available, of swap, in huge pages, and kept for the host itself.
      type: dict
    numa:
      description: CPUs, bytes, huge pages by size and distances of each NUMA node.
      type: dict
    virtualization:
      description:
        - The KVM module, whether an IOMMU is active (groups exist), nested guests, kernel lockdown, physical functions with their NUMA
          node, which is null where the firmware does not tell.
        - C(firmware_action_required) lists what only the firmware's set-up can switch on.
      type: dict
    limits:
      description: Limits of hosts and guests, each with its source and this host's own figure where it tells one.
      type: list
      elements: dict
    capacity:
      description:
        - How full the host is with its running guests, with those that start with it too, and each NUMA node with the guests bound to it.
        - C(verdict) is V(ok), V(warn) or V(fail), C(findings) say why.
      type: dict
    boot:
      description:
        - What becomes of each network, pool and guest that is to start with the host.
        - C(verdict) is V(starts), V(fails) with the reasons, or V(contends) where not all that want something can have it and libvirt
          promises no order.
      type: list
      elements: dict
      sample: [{"kind": "guest", "name": "db01", "verdict": "fails", "reasons": ["network lan does not start with the host"]}]
    guests:
      description:
        - For each running guest the bytes of its memory on each node, C(misplaced) bytes that are not on the nodes it is bound to, bytes
          locked, and what KSM merges and saves.
      type: list
      elements: dict
      sample: [{"name": "db01", "pid": 812, "memory_by_node": {"0": 4294967296}, "nodes": [0], "misplaced": 0}]
    tuning:
      description: Settings as M(anfitrion.kvm.kvm_tuning) takes them.
      type: dict
    kernel_command_line:
      description: Words of the running kernel's command line, and of every entry of the boot loader.
      type: dict
    found:
      description: What options were before M(anfitrion.kvm.kvm_tuning) first changed them.
      type: dict
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.host import HOST
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(HOST)


if __name__ == "__main__":
    main()
