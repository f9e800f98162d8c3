#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_agent."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_agent
short_description: What the QEMU guest agent does inside a guest
description:
  - Has accounts, clock and file systems of a running guest as declared, through its guest agent and without its network.
  - Every question to the agent has an end, O(answer_timeout).
  - Options that are not given are not managed.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.agent
  - anfitrion.kvm.attributes
requirements:
  - python3-libvirt and python3-lxml on the host
  - libvirt 8.0 or newer on the host
  - qemu-guest-agent in the guest, and its channel (O(anfitrion.kvm.kvm_domain#module:guest_agent))
seealso:
  - module: anfitrion.kvm.kvm_agent_info
  - module: anfitrion.kvm.kvm_domain
"""

EXAMPLES = r"""
- name: Have a password and a key of root, and the right time, in a guest that was just started
  anfitrion.kvm.kvm_agent:
    name: web01
    wait_timeout: 300
    users:
      - name: root
        password: "{{ vault_root_password }}"
        ssh_keys: ["{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"]
    time: host

- name: Give back to the host what the file systems of two guests do not use
  anfitrion.kvm.kvm_agent:
    defaults: {trimmed: true}
    answer_timeout: 600
    guests:
      - {name: web01}
      - {name: db01}

- name: Let the file systems of a guest stand still
  anfitrion.kvm.kvm_agent:
    name: db01
    frozen: true
"""

RETURN = r"""
changes:
  description: What differs, before and after. In the list form, in each of RV(results).
  returned: success
  type: list
  elements: dict
  sample: [{"option": "frozen", "before": false, "after": true, "how": "live"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["freeze its file systems"]
pending_restart:
  description: Always empty, everything is taken at once.
  returned: success
  type: list
  elements: str
  sample: []
trimmed_bytes:
  description: How many bytes the file systems told their disks that they do not use.
  returned: when O(trimmed) is given
  type: int
  sample: 1073741824
results:
  description: One entry for each guest, in the list form.
  returned: when O(guests) is given
  type: list
  elements: dict
  sample: [{"name": "web01", "changed": false, "changes": [], "steps": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.inside import AGENT
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(AGENT)


if __name__ == "__main__":
    main()
