#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_snapshot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_snapshot
short_description: Snapshots of KVM guests
description:
  - Takes snapshots of guests, puts guests back to them, deletes them and keeps only the last of a series.
  - After an external snapshot the disks of the guest are other files. Name them anew in the task of the guest, or delete the
    snapshot before that task runs.
  - External snapshots are merged by libvirt 9.0 and newer, and put back to by libvirt 9.9 and newer; older ones refuse it.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.snapshot
  - anfitrion.kvm.attributes
requirements:
  - python3-libvirt and python3-lxml on the host
  - libvirt 8.0 or newer on the host
seealso:
  - module: anfitrion.kvm.kvm_snapshot_info
  - module: anfitrion.kvm.kvm_backup
"""

EXAMPLES = r"""
- name: Have a snapshot before an upgrade
  anfitrion.kvm.kvm_snapshot:
    domain: db01
    name: before-upgrade

- name: Put the guest back to it
  anfitrion.kvm.kvm_snapshot:
    domain: db01
    name: before-upgrade
    state: reverted

- name: Have one for today, and those of the last seven days
  anfitrion.kvm.kvm_snapshot:
    domain: db01
    name: daily-2025-06-01
    series: daily-
    keep: 7
"""

RETURN = r"""
changes:
  description:
    - What differs.
    - In the list form, in each of RV(results).
  returned: success
  type: list
  elements: dict
  sample: [{"option": "state", "before": null, "after": "present", "how": "live"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["take snapshot before-upgrade of db01"]
results:
  description: One entry for each snapshot, in the list form.
  returned: when O(snapshots) is given
  type: list
  elements: dict
  sample: [{"domain": "db01", "name": "before-upgrade", "changed": true, "changes": [], "steps": [], "pending_restart": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.snapshot import SNAPSHOT
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(SNAPSHOT)


if __name__ == "__main__":
    main()
