#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_snapshot_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_snapshot_info
short_description: What snapshots the KVM guests of a host have
description:
  - Tells of the snapshots of all guests.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.snapshot.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_snapshot
"""

EXAMPLES = r"""
- name: Read which snapshots there are
  anfitrion.kvm.kvm_snapshot_info:
  register: found
"""

RETURN = r"""
snapshots:
  description: The snapshots, by guest, oldest first. C(made) is in seconds since 1970.
  returned: success
  type: list
  elements: dict
  sample: [{"domain": "db01", "name": "before-upgrade", "state": "present", "kind": "internal", "current": true, "made": 1750000000}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.snapshot import SNAPSHOT
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(SNAPSHOT)


if __name__ == "__main__":
    main()
