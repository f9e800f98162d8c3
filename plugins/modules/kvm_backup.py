#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_backup
short_description: Backups of the disks of KVM guests
description:
  - Writes full and incremental backups of a running guest, all disks as of one moment, while the guest goes on; of a guest
    that does not run, full ones. Restores them, and proves that a guest boots from them.
  - A backup is a directory with one qcow2 image for each disk, the definition of the guest and a manifest with digests. The image of an
    incremental backup lies on that of the one before, so it reads as the whole disk.
  - A backup is written to a draft, checked, and only then gets its name. A failed one leaves nothing.
  - The drill boots a transient guest from overlays on the backup, without network and without devices of the host.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.backup
  - anfitrion.kvm.attributes
requirements:
  - python3-libvirt and python3-lxml on the host
  - libvirt 8.0 or newer and qemu-img on the host
seealso:
  - module: anfitrion.kvm.kvm_backup_info
  - module: anfitrion.kvm.kvm_volume
"""

EXAMPLES = r"""
- name: Have a full backup
  anfitrion.kvm.kvm_backup:
    domain: db01
    name: sunday
    path: /backup/db01
    quiesce: true

- name: Have what was written since
  anfitrion.kvm.kvm_backup:
    domain: db01
    name: monday
    path: /backup/db01
    incremental: true

- name: Have a full one of this week, and none older than a month
  anfitrion.kvm.kvm_backup:
    domain: db01
    name: week-2025-23
    path: /backup/db01
    mode: pull
    keep_days: 31

- name: Know that the guest boots from it
  anfitrion.kvm.kvm_backup:
    domain: db01
    name: monday
    path: /backup/db01
    state: drilled
    drill: {ready: "login:", timeout: 300}

- name: Have volumes with its content
  anfitrion.kvm.kvm_backup:
    domain: db01
    name: monday
    path: /backup/db01
    state: restored
    restore: {pool: vms, prefix: db01-restored}
"""

RETURN = r"""
changes:
  description:
    - What differs.
    - In the list form, in each of RV(results).
  returned: success
  type: list
  elements: dict
  sample: [{"option": "disks[vda]", "before": null, "after": "changes since sunday", "how": "host"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["write backup monday of db01 to /backup/db01"]
results:
  description: One entry for each backup, in the list form.
  returned: when O(backups) is given
  type: list
  elements: dict
  sample: [{"domain": "db01", "name": "monday", "changed": true, "changes": [], "steps": [], "pending_restart": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.backup import BACKUP
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(BACKUP)


if __name__ == "__main__":
    main()
