# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest answers when it is asked to give a device back: libvirt tells it as an event, and only as an event."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, connect, libvirt, told

PULSE_MS = 500  # how often the loop looks whether it is still wanted
LOOK_S = 1.0  # how often the definition is looked at beside: a device that was gone before we listened


class DeviceEvents:
    """A connection of its own that listens for devices that leave, or that a guest keeps.

    libvirt needs its event loop before a connection is opened, and a task that unplugs nothing should not pay for one.
    """

    def __init__(self, uri: str) -> None:
        self._answers: dict[tuple[str, str], bool] = {}
        self._arrived = threading.Condition()
        self._wanted = True
        with told("cannot listen for events"):
            libvirt.virEventRegisterDefaultImpl()
            libvirt.virEventAddTimeout(PULSE_MS, lambda _timer, _opaque: None, None)
        threading.Thread(target=self._loop, daemon=True).start()
        self.connection = connect(uri)
        with told("cannot listen for events"):
            for event, left in (
                (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, True),
                (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, False),
            ):
                self.connection.domainEventRegisterAny(None, event, self._heard, left)

    def _loop(self) -> None:
        while self._wanted:
            libvirt.virEventRunDefaultImpl()

    def _heard(self, _connection: Any, domain: Any, alias: str, left: bool) -> None:
        with self._arrived:
            self._answers[domain.name(), alias] = left
            self._arrived.notify_all()

    def forget(self, guest: str, alias: str) -> None:
        """Drop an answer to an earlier question."""
        with self._arrived:
            self._answers.pop((guest, alias), None)

    def answer(self, guest: str, alias: str, patience: float, gone: Callable[[], bool]) -> bool | None:
        """Return whether the guest let the device go, None when it said nothing within C(patience) seconds."""
        deadline = time.monotonic() + patience
        with self._arrived:
            while (guest, alias) not in self._answers:
                left = deadline - time.monotonic()
                if left <= 0:
                    return True if gone() else None
                if not self._arrived.wait(min(left, LOOK_S)) and gone():
                    return True
            return self._answers[guest, alias]

    def close(self) -> None:
        """Let the loop end with its next pulse."""
        self._wanted = False


def device_events(session: Libvirt) -> DeviceEvents:
    """Return the listener of this task."""
    events: DeviceEvents = session.once("device events", lambda: session.closing(DeviceEvents(session.params["uri"])))
    return events
