"""A learning Ethernet switch for lab hosts: frames as UDP datagrams on loopback, as QEMU's "socket,udp=" NICs speak it.

    lan_switch.py --port 22100 --members 22111,22112,22121,22122 --while-exists /run/lab

Every NIC has a loopback port of its own and sends to the switch's port (libvirt: <interface type='udp'>). A datagram from
any other address is dropped. Multicast sockets would need no switch, but give every sender its own frames back, which
breaks bridges. The switch ends when the path given with --while-exists is gone.
"""

from __future__ import annotations

import argparse
import errno
import os
import select
import socket
import sys
import time

LARGEST_FRAME = 65536
FORGET_AFTER_SECONDS = 300.0
LOOK_EVERY_SECONDS = 2.0


def member_ports(text: str) -> list[int]:
    """Ports out of "22111,22112"."""
    return [int(word) for word in text.split(",")]


def target_ports(frame: bytes, source: int, members: list[int], seen: dict[bytes, tuple[int, float]], now: float) -> list[int]:
    """Learn where a frame came from and return where it goes: one port if its destination is known, else all others."""
    destination, sender = frame[0:6], frame[6:12]
    if not sender[0] & 1:
        seen[sender] = (source, now)
    if not destination[0] & 1 and destination in seen:
        port, when = seen[destination]
        if now - when < FORGET_AFTER_SECONDS:
            return [port] if port != source else []
    return [port for port in members if port != source]


def listen(port: int) -> socket.socket | None:
    """Return the socket of the switch, None when another switch has the port."""
    switch = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        switch.bind(("127.0.0.1", port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        switch.close()
        return None
    return switch


def detach() -> None:
    """Go on in a process of its own, without the terminal and the output of whoever started it."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)


def forward(switch: socket.socket, members: list[int], path: str) -> None:
    """Forward frames until the path is gone."""
    seen: dict[bytes, tuple[int, float]] = {}
    known = set(members)
    with switch:
        next_look = 0.0
        while True:
            now = time.monotonic()
            if now >= next_look:
                if not os.path.exists(path):
                    return
                next_look = now + LOOK_EVERY_SECONDS
            if not select.select([switch], [], [], LOOK_EVERY_SECONDS)[0]:
                continue
            frame, (address, source) = switch.recvfrom(LARGEST_FRAME)
            if address != "127.0.0.1" or source not in known or len(frame) < 14:
                continue
            for target in target_ports(frame, source, members, seen, now):
                switch.sendto(frame, ("127.0.0.1", target))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--members", type=member_ports, required=True, help="the NICs' own ports, with commas between")
    parser.add_argument("--while-exists", required=True, metavar="PATH", help="end when this is gone")
    parser.add_argument("--daemon", action="store_true", help="print started, or running where it runs, and go on alone")
    arguments = parser.parse_args()
    switch = listen(arguments.port)
    if switch is None:
        print("running")
        return 0 if arguments.daemon else 1
    if arguments.daemon:
        print("started", flush=True)
        detach()
    forward(switch, arguments.members, arguments.while_exists)
    return 0


if __name__ == "__main__":
    sys.exit(main())
