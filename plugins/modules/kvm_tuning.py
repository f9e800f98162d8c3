#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_tuning."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_tuning
short_description: Memory and KVM settings of a host
description:
  - Sets kernel samepage merging, huge pages of each NUMA node, NUMA balancing, transparent huge pages, parameters of the virtual memory,
    nested guests, kernel modules, the packet filter of bridges, the tuned profile, isolated CPUs and the kernel's command line, in the
    running kernel and for every boot.
  - Desired, running and persisted state are compared separately; the task is changed when either of them differs.
  - Every value is read back, since the kernel accepts writes that it does not, or not wholly, carry out. When one fails, all earlier
    ones are set back.
  - What something else sets too (ksmtuned, tuned, a line in C(sysctl.d), C(tmpfiles.d) or C(modprobe.d), the boot loader's own files) is
    refused with its name, never overwritten.
  - The command line goes through GRUB (Debian, Ubuntu, SUSE), grubby (EL, Fedora), systemd-boot or rpm-ostree, whichever the host has. It
    is looked for in every generated entry, and everything is put back when the generator fails.
  - What a knob was before its first change is kept in C(/etc/anfitrion.d/found.json); O(unset) gives it back.
  - It writes C(/etc/tmpfiles.d/50-anfitrion-ksm.conf), C(/etc/tmpfiles.d/50-anfitrion-thp.conf), C(/etc/anfitrion.d/hugepages.conf) with
    C(anfitrion-hugepages.service), C(/etc/sysctl.d/90-anfitrion-kvm.conf), C(/etc/modprobe.d/anfitrion-kvm.conf),
    C(/etc/modules-load.d/anfitrion-kvm.conf), C(/etc/sysctl.d/91-anfitrion-bridges.conf) with
    C(/etc/udev/rules.d/91-anfitrion-bridges.rules), C(/etc/default/grub.d/60-anfitrion.cfg) and units such as
    C(dev-hugepages1G.mount).
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.tuning
  - anfitrion.kvm.attributes
seealso:
  - module: anfitrion.kvm.kvm_tuning_info
  - name: Kernel samepage merging
    description: The kernel's own description of every knob.
    link: https://docs.kernel.org/admin-guide/mm/ksm.html
"""

EXAMPLES = r"""
- name: Merge equal pages of guests, each NUMA node for itself
  anfitrion.kvm.kvm_tuning:
    ksm:
      enabled: true
      merge_across_nodes: false
      pages_to_scan: 1000
      sleep_millisecs: 20
      accept_risk: true   # this host has no swap

- name: Let the kernel choose the scan rate
  anfitrion.kvm.kvm_tuning:
    ksm: {enabled: true, advisor_mode: scan-time, advisor_max_cpu: 30, ksmtuned: masked}

- name: Set huge pages aside and leave NUMA placement to pinning
  anfitrion.kvm.kvm_tuning:
    hugepages:
      - size: 2MiB
        nodes:
          - {node: 0, count: 64}
          - {node: 1, count: 64}
    numa_balancing: 0
    transparent_hugepages: {enabled: madvise, defrag: madvise}

- name: Allow guests to run guests
  anfitrion.kvm.kvm_tuning:
    nested: true
  register: tuning

- name: Set pages of 1 GiB aside when the kernel starts, and let guests have the device behind the IOMMU
  anfitrion.kvm.kvm_tuning:
    hugepages:
      - {size: 1GiB, nodes: [{node: 0, count: 8}, {node: 1, count: 8}]}
    kernel_arguments:
      - {name: intel_iommu, values: ["on"]}
      - {name: iommu, values: [pt]}
    cpu_isolation: {cpus: 2-15, nohz_full: true}
    tuned: virtual-host
    vm: {swappiness: 10, overcommit_memory: 1}

- name: Give the host back its own KSM and memory settings
  anfitrion.kvm.kvm_tuning:
    unset: [ksm, vm, hugepages]

- name: Stop merging and give every guest its own pages back
  anfitrion.kvm.kvm_tuning:
    ksm: {enabled: false, unmerge: true}
"""

RETURN = r"""
changes:
  description:
    - What differs. C(how) tells how it is taken, V(live) in the running kernel, V(next_boot) in a file that the next boot reads.
    - Options that begin with V(persisted) are what the next boot does.
  returned: success
  type: list
  elements: dict
  sample: [{"option": "ksm.pages_to_scan", "before": "100", "after": "1000", "how": "live"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["write 1000 to /sys/kernel/mm/ksm/pages_to_scan"]
pending_restart:
  description: Options that take effect only when guests, or the host, start again.
  returned: success
  type: list
  elements: str
  sample: []
reboot_required:
  description: Whether something that is declared takes effect only at the next boot. It stays true until that boot.
  returned: success
  type: bool
  sample: false
reboot_reasons:
  description: Why.
  returned: success
  type: list
  elements: str
  sample: []
tuning:
  description: What the host has when the task ends, in check mode what it has now, in the words of the options.
  returned: success
  type: dict
  sample: {"ksm": {"enabled": true, "pages_to_scan": 1000}, "numa_balancing": 0}
ksm_risks:
  description: What O(ksm.accept_risk) accepted.
  returned: when O(ksm.enabled=true)
  type: list
  elements: str
  sample: ["the host has no swap (pages that guests write to need memory at once)"]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._node.tuning import TUNING
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(TUNING)


if __name__ == "__main__":
    main()
