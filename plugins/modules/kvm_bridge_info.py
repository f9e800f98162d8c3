#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_bridge_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_bridge_info
short_description: Which bridges of the host there are, and who configures its NICs
description:
  - Tells of the bridges that M(anfitrion.kvm.kvm_bridge) made, in the shape that it takes.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.bridge.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
seealso:
  - module: anfitrion.kvm.kvm_bridge
"""

EXAMPLES = r"""
- name: Read the bridges
  anfitrion.kvm.kvm_bridge_info:
  register: bridges
"""

RETURN = r"""
bridges:
  description: The bridges, sorted by name.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "br0", "ports": ["eth0"], "stp": false, "manager": "networkd"}]
nics:
  description: The Ethernet interfaces that are no bridges, the managers that claim each with the file by which they do, and what each is in.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "eth0", "owners": {"networkd": "/etc/systemd/network/10-eth0.network"}, "master": null}]
last_change:
  description:
    - What became of the last change of the host's network that was to be confirmed.
    - C(state) is one of V(armed), V(running), V(taken_back) and V(confirmed); C(said) is what was said while it was taken back.
  returned: success
  type: dict
  sample: {"token": "network-0123456789ab", "state": "armed", "seconds_left": 57, "said": ""}
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._node.bridge import BRIDGES_TOLD
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(BRIDGES_TOLD)


if __name__ == "__main__":
    main()
