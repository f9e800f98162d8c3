#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_tuning_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_tuning_info
short_description: What the memory and KVM settings of a host are
description:
  - Tells what the running kernel has, in the shape that M(anfitrion.kvm.kvm_tuning) takes.
  - What the kernel does not have is left out.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.tuning.info
  - anfitrion.kvm.attributes
  - anfitrion.kvm.attributes.info
seealso:
  - module: anfitrion.kvm.kvm_tuning
"""

EXAMPLES = r"""
- name: Read the settings of this host
  anfitrion.kvm.kvm_tuning_info:
  register: host
"""

RETURN = r"""
tuning:
  description: The settings.
  returned: success
  type: dict
  sample: {"ksm": {"enabled": true, "pages_to_scan": 1000}, "numa_balancing": 0, "nested": true}
kernel_command_line:
  description: Words of the running kernel's command line, and of every entry of the boot loader.
  returned: success
  type: dict
  sample: {"running": ["root=/dev/vda1", "quiet"], "next boot: Debian GNU/Linux": ["root=/dev/vda1", "quiet", "iommu=pt"]}
found:
  description: What options were before M(anfitrion.kvm.kvm_tuning) first changed them.
  returned: success
  type: dict
  sample: {"ksm.pages_to_scan": "100"}
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._node.tuning import TUNING
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run_info

    run_info(TUNING)


if __name__ == "__main__":
    main()
