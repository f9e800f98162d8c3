#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_nwfilter."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_nwfilter
short_description: Network filters of a KVM host
description:
  - Defines libvirt's network filters, changes what exists, and removes them.
  - A filter acts where an interface of a guest refers to it, with C(filter) of M(anfitrion.kvm.kvm_domain). libvirt brings C(clean-traffic) and
    others along, which keep a guest from sending under addresses that are not its own.
  - Definitions are compared by what they mean. How a number, an address or a mask is written makes no change; the order of rules does.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.nwfilter
  - anfitrion.kvm.attributes
requirements:
  - python3-libvirt and python3-lxml on the host
  - libvirt 8.0 or newer on the host
seealso:
  - module: anfitrion.kvm.kvm_nwfilter_info
  - module: anfitrion.kvm.kvm_domain
"""

EXAMPLES = r"""
- name: Keep guests from sending mail, and from addresses that are not theirs
  anfitrion.kvm.kvm_nwfilter:
    name: no-mail
    xml: |
      <filter name="no-mail">
        <filterref filter="clean-traffic"/>
        <rule action="drop" direction="out" priority="400"><tcp dstportstart="25"/></rule>
      </filter>

- name: Remove a filter that no guest uses
  anfitrion.kvm.kvm_nwfilter:
    name: no-mail
    state: absent
"""

RETURN = r"""
changes:
  description:
    - What differs. C(how) tells how it is taken, V(define), V(live) by guests that use it, V(remove).
    - In the list form, in each of RV(results).
  returned: success
  type: list
  elements: dict
  sample: [{"option": "state", "before": "present", "after": "absent", "how": "remove"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["define network filter no-mail"]
results:
  description: One entry for each filter, in the list form.
  returned: when O(nwfilters) is given
  type: list
  elements: dict
  sample: [{"name": "no-mail", "changed": true, "changes": [], "steps": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.nwfilter import NWFILTER
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(NWFILTER)


if __name__ == "__main__":
    main()
