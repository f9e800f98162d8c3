# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of hosts and guests. Figures age: each has a source, and a probe where this host itself can be asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """One limit. probe: how this host tells its own figure, which then wins; None: only the source knows.

    at_most: what may not be passed; advised: what is better not passed.
    """

    name: str
    doc: str
    source: str
    probe: str | None = None
    at_most: int | None = None
    advised: float | None = None


LIMITS = (
    Limit("vcpus_of_a_guest", "vCPUs that KVM gives one guest", "kernel KVM_CAP_MAX_VCPUS, 1024 unless built otherwise",
          "virConnectGetMaxVcpus", at_most=1024),
    Limit("vcpus_over_cpus", "vCPUs of one guest on more than all CPUs of the host", "kernel KVM_CAP_NR_VCPUS (5.16 and later): online CPUs",
          "/sys/devices/system/cpu/online"),
    Limit("cpu_ratio", "vCPUs of all guests for each CPU", "RHEL 10, Configuring and managing virtualization: 5 to 1", advised=5.0),
    Limit("memory_ratio", "memory of all guests for what is left to them", "OpenStack nova initial_ram_allocation_ratio: 1.0", advised=1.0),
    Limit("vfio_devices_of_a_guest", "VFIO devices of one guest", "RHEL 7.2, Virtualization Deployment and Administration Guide: 32",
          advised=32),
    Limit("pools_thin_ratio", "capacity of volumes over the size of their pool", "rule of thumb: 1.5", advised=1.5),
    Limit("aio_requests", "native I/O requests of the whole host, 128 for each disk", "kernel fs.aio-max-nr", "/proc/sys/fs/aio-max-nr"),
)  # fmt: skip

BY_NAME = {limit.name: limit for limit in LIMITS}
