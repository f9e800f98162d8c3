#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_volume."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_volume
short_description: Storage volumes of a KVM host
description:
  - Creates storage volumes in an active pool, empty or with the content of a volume, file or address; grows, flattens, commits,
    copies out and deletes them.
  - A volume is made smaller only with O(shrink), and its format and backing never change. What a guest uses is never deleted.
  - A volume that one running guest uses grows in that guest at once.
  - Content that comes from elsewhere is written to a draft beside the volume, checked against its source, and only then gets its
    name. A draft of a task that was killed is taken away by the next one that makes the volume.
  - An image is only opened as of the format that the task or libvirt names. One that has its data from a file outside
    the active pools of the host is refused.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.volume
  - anfitrion.kvm.attributes
requirements:
  - python3-libvirt and python3-lxml on the host
  - libvirt 8.0 or newer on the host
seealso:
  - module: anfitrion.kvm.kvm_volume_info
  - module: anfitrion.kvm.kvm_pool
  - module: anfitrion.kvm.kvm_domain
"""

EXAMPLES = r"""
- name: Have a disk that takes space as it is written
  anfitrion.kvm.kvm_volume:
    pool: vms
    name: db01.qcow2
    capacity: 40GiB

- name: Have two disks that hold only what differs from an image
  anfitrion.kvm.kvm_volume:
    defaults:
      pool: vms
      backing: {pool: vms, volume: debian-13.qcow2, format: qcow2}
    volumes:
      - {name: web01.qcow2, capacity: 20GiB}
      - {name: web02.qcow2, capacity: 20GiB}

- name: Have a disk with the content of an image that is fetched and checked
  anfitrion.kvm.kvm_volume:
    pool: vms
    name: db02.qcow2
    capacity: 40GiB
    source:
      url: https://example.org/debian-13.qcow2
      checksum: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      format: qcow2

- name: Have a copy of a disk, in another format
  anfitrion.kvm.kvm_volume:
    pool: vms
    name: db02.vmdk
    format: vmdk
    source: {volume: db02.qcow2}

- name: Have an encrypted disk
  anfitrion.kvm.kvm_volume:
    pool: vms
    name: safe.qcow2
    capacity: 40GiB
    encryption: {password: "{{ safe_password }}"}

- name: Keep what a guest has written since its disk was put on another one
  anfitrion.kvm.kvm_volume:
    pool: vms
    name: web01.qcow2
    changes: commit

- name: Have disks only while the pool can take them
  anfitrion.kvm.kvm_volume:
    thin_percent_max: 150
    full_percent_max: 85
    defaults: {pool: vms, capacity: 20GiB}
    volumes: [{name: a.qcow2}, {name: b.qcow2}]

- name: Delete a disk that no guest has any more
  anfitrion.kvm.kvm_volume:
    pool: vms
    name: web02.qcow2
    state: absent
"""

RETURN = r"""
changes:
  description:
    - What differs. C(how) tells how it is taken, V(define), V(live), V(host), V(remove).
    - In the list form, in each of RV(results).
  returned: success
  type: list
  elements: dict
  sample: [{"option": "capacity", "before": "20GiB", "after": "40GiB", "how": "live"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["grow volume db01.qcow2 to 40GiB"]
defaults_applied:
  description: Options that a volume got by default, because it was created.
  returned: when a volume is created
  type: list
  elements: str
  sample: ["format"]
results:
  description: One entry for each volume, in the list form.
  returned: when O(volumes) is given
  type: list
  elements: dict
  sample: [{"name": "lab", "changed": true, "changes": [], "steps": [], "pending_restart": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.volume import VOLUME
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(VOLUME)


if __name__ == "__main__":
    main()
