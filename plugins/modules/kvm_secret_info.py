#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_secret_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_secret_info
short_description: What the secrets of a KVM host are
description:
  - Tells of secrets in the shape that M(anfitrion.kvm.kvm_secret) takes, and never of their values.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.secret.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_secret
"""

EXAMPLES = r"""
- name: Read which secrets there are
  anfitrion.kvm.kvm_secret_info:
  register: found
"""

RETURN = r"""
secrets:
  description: Options of each secret, sorted by type and name.
  returned: success
  type: list
  elements: dict
  sample: [{"type": "iscsi", "name": "san", "state": "present", "private": true, "ephemeral": false}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.secret import SECRET
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(SECRET)


if __name__ == "__main__":
    main()
