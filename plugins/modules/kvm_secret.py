#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_secret."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_secret
short_description: Secrets that libvirt keeps for disks, pools and TLS
description:
  - Defines secrets, sets their values and removes them.
  - A value that differs is seen and set. libvirt gives the value of a secret away unless it is private; that of a private one
    is known by a keyed digest in its description. A value is never shown, in no result, diff or log.
version_added: 0.2.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.secret
  - anfitrion.kvm.attributes
requirements:
  - python3-libvirt and python3-lxml on the host
  - libvirt 8.0 or newer on the host
seealso:
  - module: anfitrion.kvm.kvm_secret_info
  - module: anfitrion.kvm.kvm_pool
  - module: anfitrion.kvm.kvm_volume
"""

EXAMPLES = r"""
- name: Have the password of encrypted disks
  anfitrion.kvm.kvm_secret:
    type: volume
    name: db01-disk
    private: true
    description: LUKS password of db01
    value: "{{ db01_disk_password }}"

- name: Forget a password
  anfitrion.kvm.kvm_secret:
    type: iscsi
    name: old-store
    state: absent
"""

RETURN = r"""
changes:
  description:
    - What differs. A value is only said to differ.
    - In the list form, in each of RV(results).
  returned: success
  type: list
  elements: dict
  sample: [{"option": "value", "before": "(another or none)", "after": "(not shown)", "how": "define"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["define secret volume/db01-disk"]
results:
  description: One entry for each secret, in the list form.
  returned: when O(secrets) is given
  type: list
  elements: dict
  sample: [{"type": "volume", "name": "db01-disk", "changed": true, "changes": [], "steps": [], "pending_restart": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.secret import SECRET
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(SECRET)


if __name__ == "__main__":
    main()
