#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_placement."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_placement
short_description: Which NUMA node a guest lives on
description:
  - Binds the memory and the vCPUs of a guest to one NUMA node, chosen by the task or by the host's room and the guest's PCI devices.
  - The decision is recorded in the guest's metadata and stands as long as the guest fits there, so a second run changes nothing.
  - The next start has it all. A running guest's vCPUs are pinned at once and its pages moved, which the kernel's own count proves; what
    stays behind for want of free pages on the node is a failure that says so.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.placement
  - anfitrion.kvm.attributes
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_host_info
  - module: anfitrion.kvm.kvm_domain
"""

EXAMPLES = r"""
- name: Place guests where the room is
  anfitrion.kvm.kvm_placement:
    defaults: {node: auto}
    guests:
      - {name: db01}
      - {name: db02}

- name: Have one guest on node 1, its pages too
  anfitrion.kvm.kvm_placement:
    name: db01
    node: "1"
"""

RETURN = r"""
decision:
  description: The node, and why that one.
  returned: success
  type: dict
  sample: {"node": 1, "reason": "the most room is there"}
changes:
  description: What differs. C(how) is V(live) for what the running guest takes now, V(next_boot) for its next start.
  returned: success
  type: list
  elements: dict
  sample: [{"option": "numatune.memory.nodeset", "before": null, "after": "1", "how": "next_boot"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["move 256 MiB of db01 to node 1"]
pending_restart:
  description: What the running guest takes only at its next start.
  returned: success
  type: list
  elements: str
  sample: ["numatune.memory.nodeset"]
results:
  description: For each of O(guests) what is returned for one, with its name.
  returned: when O(guests) is given
  type: list
  elements: dict
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.place import PLACEMENT
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(PLACEMENT)


if __name__ == "__main__":
    main()
