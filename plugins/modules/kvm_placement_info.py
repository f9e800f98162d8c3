#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_placement_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_placement_info
short_description: Which NUMA nodes guests were placed on
description:
  - Tells the recorded node of each guest in the shape that M(anfitrion.kvm.kvm_placement) takes. Where their memory really is tells
    M(anfitrion.kvm.kvm_host_info).
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.placement.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_placement
"""

EXAMPLES = r"""
- name: Read where guests were placed
  anfitrion.kvm.kvm_placement_info:
  register: placed
"""

RETURN = r"""
guests:
  description: Guests with a recorded node, sorted by name.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "db01", "node": "1"}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.place import PLACEMENT
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(PLACEMENT)


if __name__ == "__main__":
    main()
