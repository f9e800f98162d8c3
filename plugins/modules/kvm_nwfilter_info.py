#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_nwfilter_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_nwfilter_info
short_description: What the network filters of a KVM host are
description:
  - Tells of network filters in the shape that M(anfitrion.kvm.kvm_nwfilter) takes.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.nwfilter.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
requirements:
  - python3-libvirt and python3-lxml on the host
seealso:
  - module: anfitrion.kvm.kvm_nwfilter
"""

EXAMPLES = r"""
- name: Read one filter
  anfitrion.kvm.kvm_nwfilter_info:
    name: clean-traffic
  register: found
"""

RETURN = r"""
nwfilters:
  description: The filters, sorted by name.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "no-mail", "xml": "<filter name='no-mail'>…</filter>"}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.nwfilter import NWFILTER
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(NWFILTER)


if __name__ == "__main__":
    main()
