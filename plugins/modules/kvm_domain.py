#!/usr/bin/python
# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module kvm_domain."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kvm_domain
short_description: Guests of a KVM host
description:
  - Defines guests, changes what exists, live where libvirt can, and starts, stops and removes them.
  - Options that are not given are not managed. Items of a list that are not mentioned stay.
  - What libvirt fills in by itself is never a change. XML that no option covers survives every change.
  - No disk is deleted that O(remove_storage) does not name, and a running guest is never powered off unless O(force_stop) says so.
version_added: 0.1.0
author: anfitrion.kvm contributors (@anfitrion)
extends_documentation_fragment:
  - anfitrion.kvm.domain
  - anfitrion.kvm.attributes
requirements:
  - python3-libvirt and python3-lxml on the host
  - libvirt 8.0 or newer on the host
seealso:
  - module: anfitrion.kvm.kvm_domain_info
  - module: anfitrion.kvm.kvm_network
  - module: anfitrion.kvm.kvm_volume
"""

EXAMPLES = r"""
- name: Have a database guest with a virtual function
  anfitrion.kvm.kvm_domain:
    name: db01
    state: running
    autostart: true
    vcpus: {count: 2, max: 4}
    memory: {size: 2GiB}
    disks:
      - {target: vda, pool: vms, volume: db01.qcow2}
    interfaces:
      - {name: lan, network: default}
      - {name: fast, mac: "52:54:00:00:01:03", vf: {pf: ens1f0, index: 3}}
    guest_agent: true

- name: Have two guests that differ in little
  anfitrion.kvm.kvm_domain:
    defaults:
      state: running
      memory: {size: 1GiB}
      interfaces:
        - {name: lan, network: default}
    domains:
      - name: web01
        disks: [{target: vda, pool: vms, volume: web01.qcow2}]
      - name: web02
        disks: [{target: vda, pool: vms, volume: web02.qcow2}]

- name: Take away every disk that is not mentioned
  anfitrion.kvm.kvm_domain:
    name: web01
    disks: [{target: vda}]
    purge: [disks]

- name: Give a running guest more, at once or not at all
  anfitrion.kvm.kvm_domain:
    name: web01
    vcpus: {count: 4}
    memory: {size: 2GiB}
    apply: live_only

- name: Have another machine type, and the guest restarted for it
  anfitrion.kvm.kvm_domain:
    name: web01
    os: {machine: q35}
    apply: restart_if_needed
    stop_timeout: 300

- name: Change the medium of a CD-ROM drive and the model of an interface of a running guest
  anfitrion.kvm.kvm_domain:
    name: web01
    disks: [{target: sda, path: /srv/iso/drivers.iso}]
    interfaces: [{name: lan, model: virtio}]
    allow_replug: true

- name: Start a database, then what needs it, each when the one before is well
  anfitrion.kvm.kvm_domain:
    defaults: {state: running}
    domains:
      - {name: db01, wait_for: {port: 5432, timeout: 180}}
      - {name: app01, start_after: [db01], start_delay: 10, wait_for: {agent: true, console: "login:"}}

- name: Have a guest from a cloud image, set up by cloud-init, which is taken out again once the guest answers
  anfitrion.kvm.kvm_domain:
    name: web03
    state: running
    disks: [{target: vda, pool: vms, volume: web03.qcow2}]
    interfaces: [{name: lan, network: default}]
    guest_agent: true
    cloud_init:
      user_data: |
        #cloud-config
        ssh_authorized_keys: [{{ vault_public_key }}]
        packages: [qemu-guest-agent]
      detach: true
    wait_for: {agent: true, timeout: 600}

- name: Have a template, which is never started, only cloned
  anfitrion.kvm.kvm_domain:
    name: template-debian
    template: true

- name: Have a guest like another one, on a volume of its own, with MAC addresses that are the same each time
  anfitrion.kvm.kvm_domain:
    name: web04
    clone_from: template-debian
    mac_seed: "{{ inventory_hostname }}"
    disks: [{target: vda, pool: vms, volume: web04.qcow2}]
    interfaces: [{name: lan, network: default}]

- name: Have a guest without a definition, which is gone once it stops
  anfitrion.kvm.kvm_domain:
    name: build01
    transient: true
    state: running
    disks: [{target: vda, pool: vms, volume: build01.qcow2}]

- name: Remove a guest and keep its disks
  anfitrion.kvm.kvm_domain:
    name: web02
    state: absent

- name: Remove a guest with its system disk; what else it has stays
  anfitrion.kvm.kvm_domain:
    name: web01
    state: absent
    remove_storage: [vda]
    undefine: [nvram, tpm]
"""

RETURN = r"""
changes:
  description:
    - What differs. C(how) tells how it is taken, known before anything is done.
    - V(define) where nothing runs, V(live) by the running guest at once, V(replug) by a device that is unplugged and plugged
      in again, V(next_boot) when the guest starts the next time, V(restart) by shutting it down and starting it now,
      V(start), V(stop), V(remove).
    - In the list form, in each of RV(results).
  returned: success
  type: list
  elements: dict
  sample: [{"option": "vcpus.count", "before": 2, "after": 4, "how": "live"}]
steps:
  description: What is done for it, in order, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["define domain db01", "start domain db01"]
pending_restart:
  description: Options that the running guest takes only at its next start, also those of earlier tasks.
  returned: success
  type: list
  elements: str
  sample: ["os.machine"]
defaults_applied:
  description: Options that a guest got by default, because it was first defined.
  returned: when a guest is first defined
  type: list
  elements: str
  sample: ["os.machine", "rng.backend"]
evidence:
  description:
    - What was seen of a guest that did not do what O(wait_for) asks for. C(state), C(console) (its last lines), C(messages) (what
      libvirt says about it), C(qemu_log) (the end of QEMU's log), C(screenshot) (path on the host of a picture of its screen).
    - In the list form, in its entry of RV(results).
  returned: when O(wait_for) is not met
  type: dict
  sample: {"state": "running", "console": ["grub rescue>"], "screenshot": "/var/log/libvirt/qemu/db01.screenshot.png"}
results:
  description: One entry for each guest, in the list form.
  returned: when O(domains) is given
  type: list
  elements: dict
  sample: [{"name": "web01", "changed": true, "changes": [], "steps": [], "pending_restart": []}]
"""

from ansible_collections.anfitrion.kvm.plugins.module_utils import _once


def main() -> None:
    with _once.compiling():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.domain import DOMAIN
        from ansible_collections.anfitrion.kvm.plugins.module_utils._run import run

    run(DOMAIN)


if __name__ == "__main__":
    main()
