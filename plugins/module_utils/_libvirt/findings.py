# SPDX-License-Identifier: GPL-3.0-or-later
"""What does not fit on a host, or is better not so: guest by guest, node by node, and all together. Pure."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.capacity import Finding, Report, lacking_pages, node_report, report
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.census import Guest
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import Host
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.limits import BY_NAME

DISK_REQUESTS = 128


def findings(host: Host, guests: list[Guest], max_vcpus: int | None = None, aio: int | None = None) -> list[Finding]:
    """Return everything that does not fit, the worst first."""
    whole = report(host, guests)
    found = [*lacking_pages(host, guests), *_of_guests(host, guests, max_vcpus), *_memory(host, whole)]
    for number in host.nodes if len(host.nodes) > 1 else ():
        one = node_report(host, number, guests)
        if one.need.fixed + one.need.soft > one.usable:
            names = tuple(guest.name for guest in guests if guest.nodes == {number})
            asked = (one.need.fixed + one.need.soft) >> 20
            found.append(Finding("fail" if one.need.fixed > one.usable else "warn",
                                 f"node {number}: guests bound to it need {asked} MiB, it has {one.usable >> 20} MiB", names))  # fmt: skip
    advised = BY_NAME["cpu_ratio"].advised or 0
    if whole.cpu_ratio is not None and whole.cpu_ratio > advised:
        found.append(Finding("warn", f"{whole.need.vcpus} vCPUs on {whole.cpus} CPUs are {whole.cpu_ratio} to 1, advised {advised}"))
    disks = sum(len(guest.disks) for guest in guests)
    if aio is not None and disks * DISK_REQUESTS > aio:
        found.append(Finding("warn", f"{disks} disks may need {disks * DISK_REQUESTS} native I/O requests, fs.aio-max-nr is {aio}"))
    return sorted(found, key=lambda one: one.verdict != "fail")


def _memory(host: Host, whole: Report) -> list[Finding]:
    found = []
    if whole.need.fixed > whole.usable:
        found.append(Finding("fail", f"memory that must stay in place: {whole.need.fixed >> 20} MiB, the host can give {whole.usable >> 20} MiB"))
    elif whole.swap_needed > host.swap:
        found.append(Finding("warn", f"overcommit needs {whole.swap_needed >> 20} MiB of swap, the host has {host.swap >> 20} MiB"))
    return found


def _of_guests(host: Host, guests: list[Guest], max_vcpus: int | None) -> list[Finding]:
    """Return what is too much for one guest alone."""
    most = max_vcpus or BY_NAME["vcpus_of_a_guest"].at_most or 0
    devices = BY_NAME["vfio_devices_of_a_guest"]
    found = []
    for guest in guests:
        told = (guest.name,)
        if guest.vcpus > most:
            found.append(Finding("fail", f"{guest.vcpus} vCPUs, KVM gives one guest {most}", told))
        elif guest.vcpus > len(host.cpus):
            found.append(Finding("fail", f"{guest.vcpus} vCPUs in one guest, the host has {len(host.cpus)} CPUs", told))
        if guest.nodes - set(host.nodes):
            found.append(Finding("fail", f"bound to node {min(guest.nodes - set(host.nodes))}, which this host has not", told))
        if guest.cpus - host.cpus:
            found.append(Finding("fail", f"pinned to CPU {min(guest.cpus - host.cpus)}, which this host has not", told))
        if len(guest.devices) > (devices.advised or 0):
            found.append(Finding("warn", f"{len(guest.devices)} VFIO devices in one guest, advised {devices.advised} ({devices.source})", told))
        if host.overcommit == 2 and not guest.active and not guest.pages and guest.memory > host.promise:
            words = f"vm.overcommit_memory is 2 and {max(0, host.promise) >> 20} MiB may still be promised, it asks {guest.memory >> 20} MiB"
            found.append(Finding("fail", words, told))
    return found
