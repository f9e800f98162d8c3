#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_volume_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_volume_info
short_description: What the storage volumes of a KVM host are
description:
  - Tells of volumes in the shape that M(anfitrion.kvm.kvm_volume) takes.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.volume.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_volume
"""

EXAMPLES = r"""
- name: Read the definition of one volume
  anfitrion.kvm.kvm_volume_info:
    name: db01.qcow2
  register: found
"""

RETURN = r"""
volumes:
  description: Options of each volume, sorted by name.
  returned: success
  type: list
  elements: dict
  sample: [{"pool": "vms", "name": "db01.qcow2", "state": "present", "capacity": "40GiB", "format": "qcow2"}]
orphans:
  description: Volumes that no guest, running or defined, and no other volume has, as C(pool/name).
  returned: success
  type: list
  elements: str
  sample: ["vms/old.qcow2"]
broken_chains:
  description: Volumes that lie on a file which is not there.
  returned: success
  type: list
  elements: dict
  sample: [{"volume": "vms/web01.qcow2", "backing": "/srv/vms/gone.qcow2"}]
drafts:
  description: What a task that was killed left half made.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.volume import VOLUME
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(VOLUME)


if __name__ == "__main__":
    main()
