#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_agent_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_agent_info
short_description: What the guests of a KVM host say of themselves
description:
  - Tells what the guest agents of running guests answer, each within O(answer_timeout).
  - What a guest says is its own word, not to be trusted like a fact of the host.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.agent.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_agent
"""

EXAMPLES = r"""
- name: Read what a guest says of itself
  anfitrion.kvm.kvm_agent_info:
    name: db01
  register: found

- name: Show its addresses
  ansible.builtin.debug:
    msg: "{{ found.guests[0].addresses }}"
"""

RETURN = r"""
guests:
  description:
    - What each running guest says, sorted by name. C(agent) tells whether its agent answered, C(reason) why not.
    - C(hostname), C(os), C(timezone), C(users), C(file_systems), C(disks), C(interfaces) as the agent names them, and C(addresses).
  returned: success
  type: list
  elements: dict
  sample: [{"name": "db01", "agent": true, "hostname": "db01", "os": {"id": "debian"}, "addresses": ["192.0.2.7"]}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.inside import AGENT
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(AGENT)


if __name__ == "__main__":
    main()
