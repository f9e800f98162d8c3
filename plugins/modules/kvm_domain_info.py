#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_domain_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_domain_info
short_description: What the guests of a KVM host are
description:
  - Tells of guests in the shape that M(anfitrion.kvm.kvm_domain) takes. What no option says is under C(xml). Given back, it changes nothing.
  - Secrets are left out, such as the password of a display; libvirt is not asked for them.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.domain.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_domain
"""

EXAMPLES = r"""
- name: Read the definition of one guest
  anfitrion.kvm.kvm_domain_info:
    name: db01
  register: db01

- name: Have the same guest on another host, its storage being there
  anfitrion.kvm.kvm_domain:
    domains: "{{ db01.domains }}"
  delegate_to: other.example.org
"""

RETURN = r"""
domains:
  description: Options of each guest, sorted by name, and what they do not say as C(xml), if there is any.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "db01", "state": "running", "autostart": true, "vcpus": {"count": 2, "max": 4}}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.domain_info import DOMAIN_INFO
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(DOMAIN_INFO)


if __name__ == "__main__":
    main()
