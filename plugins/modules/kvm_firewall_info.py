#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_firewall_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_firewall_info
short_description: Which packet rules the guests' networks have
description:
  - Tells of the networks whose rules M(anfitrion.kvm.kvm_firewall) keeps, in the shape that it takes.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.firewall.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
seealso:
  - module: anfitrion.kvm.kvm_firewall
"""

EXAMPLES = r"""
- name: Read the rules of all networks
  anfitrion.kvm.kvm_firewall_info:
  register: rules
"""

RETURN = r"""
networks:
  description: The networks, sorted by name.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "vms", "bridge": "virbr1", "subnet": "192.168.60.0/24", "mode": "nat", "forwards": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._node.firewall import NETWORKS
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(NETWORKS)


if __name__ == "__main__":
    main()
