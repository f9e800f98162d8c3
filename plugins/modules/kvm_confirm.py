#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_confirm."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_confirm
short_description: Let a change stay that would take itself back
description:
  - A change that can lock the operator out of a host, such as that of M(anfitrion.kvm.kvm_bridge) or of
    M(anfitrion.kvm.kvm_host_firewall), takes itself back after some seconds. This module keeps it from doing so. Packet rules are
    written for the next boot only now.
  - Run it over a new connection, for that is what shows that the host can still be reached. An old one may live on although no new
    one comes through, so over SSH a task that came by one is refused.
  - A change that was taken back fails here, with what was said while it was taken back.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.confirm
  - anfitrion.kvm.attributes
seealso:
  - module: anfitrion.kvm.kvm_bridge
  - module: anfitrion.kvm.kvm_host_firewall
"""

EXAMPLES = r"""
- name: Have a bridge
  anfitrion.kvm.kvm_bridge:
    name: br0
    ports: [eth0]
  register: bridge

- name: Leave the connection that was there before
  ansible.builtin.meta: reset_connection

- name: Let the bridge stay, now that the host has answered anew
  anfitrion.kvm.kvm_confirm:
    token: "{{ bridge.confirm.token }}"
  when: bridge.confirm.token is defined
"""

RETURN = r"""
changes:
  description: That the change is confirmed now, unless it was before.
  returned: success
  type: list
  elements: dict
  sample: [{"option": "state", "before": "waits to be confirmed", "after": "confirmed", "how": "live"}]
steps:
  description: What is done for it, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["let the change stay"]
pending_restart:
  description: Always empty.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._node.confirm import CHANGE
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(CHANGE)


if __name__ == "__main__":
    main()
