#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_backup_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_backup_info
short_description: What backups of KVM guests there are
description:
  - Tells of the backups in a directory, and on demand whether they are whole.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.backup.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_backup
"""

EXAMPLES = r"""
- name: Hold every backup of a guest against its digests
  anfitrion.kvm.kvm_backup_info:
    path: /backup/db01
    verify: true
  register: found
"""

RETURN = r"""
backups:
  description:
    - The backups, oldest first. C(disks) has the SHA-256 of each image.
    - C(faults) is what is wrong with a backup or one that it builds on, if O(verify) is true.
  returned: success
  type: list
  elements: dict
  sample: [{"domain": "db01", "name": "monday", "parent": "sunday", "checkpoint": true, "faults": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.backup import BACKUP
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(BACKUP)


if __name__ == "__main__":
    main()
