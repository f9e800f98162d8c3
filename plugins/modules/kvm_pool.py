#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_pool."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_pool
short_description: Storage pools of a KVM host
description:
  - Defines storage pools, makes what they need, makes them active and inactive, and removes their definition.
  - No data is ever deleted or overwritten unless O(delete_data) or O(overwrite) say so. O(build) makes what a pool
    needs where it is missing, a directory, file system, partition table or volume group, of devices that hold nothing.
  - A password for a server goes into a secret of libvirt, which is made and kept as M(anfitrion.kvm.kvm_secret) does.
  - "Types that were run on real storage: V(dir), V(fs), V(netfs), V(logical), V(disk), V(iscsi), V(iscsi-direct). Of V(scsi), V(mpath),
    V(zfs), V(rbd) and V(gluster) only the definitions were held against libvirt's schema."
  - Options that are not given are not managed.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.pool
  - anfitrion.kvm.attributes
requirements:
  - python3-libvirt and python3-lxml on the host
  - libvirt 8.0 or newer on the host
seealso:
  - module: anfitrion.kvm.kvm_pool_info
  - module: anfitrion.kvm.kvm_volume
"""

EXAMPLES = r"""
- name: Have a pool in a directory
  anfitrion.kvm.kvm_pool:
    name: vms
    state: active
    autostart: true
    type: dir
    path: /srv/vms
    permissions: {mode: '0711', owner: 0, group: 0}
    build: true

- name: Have a pool of logical volumes on two empty disks
  anfitrion.kvm.kvm_pool:
    name: fast
    state: active
    autostart: true
    type: logical
    source: {name: vg_fast, devices: [/dev/vdb, /dev/vdc]}
    build: true

- name: Have a pool of files on a server
  anfitrion.kvm.kvm_pool:
    name: shared
    state: active
    autostart: true
    type: netfs
    path: /srv/shared
    source: {hosts: [nfs.example.org], directory: /export/vms, format: nfs}
    build: true

- name: Have a pool of the units of an iSCSI target
  anfitrion.kvm.kvm_pool:
    name: san
    state: active
    type: iscsi
    source:
      hosts: [san.example.org]
      devices: [iqn.2025-01.org.example:store]
      auth: {type: chap, username: host1, password: "{{ san_password }}"}

- name: Delete a pool with everything in it
  anfitrion.kvm.kvm_pool:
    name: scratch
    state: absent
    delete_data: true

- name: Forget a pool and keep everything in it
  anfitrion.kvm.kvm_pool:
    name: vms
    state: absent
"""

RETURN = r"""
changes:
  description:
    - What differs. C(how) tells how it is taken, V(define), V(host), V(next_boot), V(restart), V(start), V(stop), V(remove).
    - In the list form, in each of RV(results).
  returned: success
  type: list
  elements: dict
  sample: [{"option": "path", "before": "/srv/old", "after": "/srv/vms", "how": "next_boot"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["define pool vms", "build pool vms", "start pool vms"]
pending_restart:
  description: Options that the active pool takes only at its next start, also those of earlier tasks.
  returned: success
  type: list
  elements: str
  sample: ["path"]
erased:
  description: Paths of the volumes that are deleted.
  returned: when O(delete_data) is true
  type: list
  elements: str
  sample: ["/srv/scratch/old.qcow2"]
results:
  description: One entry for each pool, in the list form.
  returned: when O(pools) is given
  type: list
  elements: dict
  sample: [{"name": "lab", "changed": true, "changes": [], "steps": [], "pending_restart": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.pool import POOL
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(POOL)


if __name__ == "__main__":
    main()
