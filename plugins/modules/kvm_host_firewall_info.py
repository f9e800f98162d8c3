#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_host_firewall_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_host_firewall_info
short_description: What a host denies unless it is allowed
description:
  - Tells of the default deny that M(anfitrion.kvm.kvm_host_firewall) keeps, in the shape that it takes.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.host_firewall.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
seealso:
  - module: anfitrion.kvm.kvm_host_firewall
"""

EXAMPLES = r"""
- name: Read what the host denies
  anfitrion.kvm.kvm_host_firewall_info:
  register: deny
"""

RETURN = r"""
host_firewall:
  description: What is denied and allowed, as it is persisted.
  returned: success
  type: dict
  sample: {"state": "present", "deny": ["forward", "input"], "allow": [{"name": "ssh", "port": "22"}], "through": []}
unconfirmed_for:
  description: For how many seconds rules that were loaded still wait to be confirmed; null if none do.
  returned: success
  type: int
  sample: null
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._node.host_firewall import HOST
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(HOST)


if __name__ == "__main__":
    main()
