#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_pool_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_pool_info
short_description: What the storage pools of a KVM host are
description:
  - Tells of pools in the shape that M(anfitrion.kvm.kvm_pool) takes, and how full they are.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.pool.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_pool
"""

EXAMPLES = r"""
- name: Read the definition of one pool
  anfitrion.kvm.kvm_pool_info:
    name: vms
  register: found

- name: Read how full the pools are, and what QEMU can do with each format
  anfitrion.kvm.kvm_pool_info:
    refresh: true
    formats: true
  register: found
"""

RETURN = r"""
pools:
  description: Options of each pool, sorted by name.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "vms", "state": "active", "autostart": true, "type": "dir", "path": "/srv/vms"}]
usage:
  description:
    - How full each active pool is, in bytes. C(promised) is the sum of what guests see as the size of their disks.
    - C(full_percent) is what is taken of the pool, C(thin_percent) what is promised of it; over 100 the pool can run full.
  returned: success
  type: list
  elements: dict
  sample: [{"pool": "vms", "capacity": 1000, "allocation": 500, "available": 500, "promised": 2000, "full_percent": 50.0, "thin_percent": 200.0}]
formats:
  description: What QEMU on this host can do with each image format, each tried on a small image.
  returned: when O(formats) is true
  type: list
  elements: dict
  sample: [{"format": "qcow2", "create": true, "convert": true, "read": true, "grow": true, "shrink": true}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.pool import POOL
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(POOL)


if __name__ == "__main__":
    main()
