"""What outside machines and guests say to each other in tests; run by the distribution's Python inside a network namespace.

    traffic.py serve NAME PORT…      answers a TCP connection with "NAME saw ADDRESS"; prints "ready" first
    traffic.py reach ADDRESS PORT [SECONDS]  prints what the server said, "refused" or, after that time (2), "silent"
    traffic.py resolve ADDRESS       prints "answered" if there is a server of DNS, or "silent"
    traffic.py echo ADDRESS          answers datagrams until its standard input ends; prints "ready" first
    traffic.py listen INTERFACE      prints at its end who sent frames there, "MAC ip ADDRESS" and "MAC arp ADDRESS"; prints "ready" first
    traffic.py ping ADDRESS          sends one every 20 ms until its standard input ends; prints how many it sent and got back
"""

from __future__ import annotations

import select
import socket
import sys
import threading
import time

PORT = 9007
PAUSE = 0.02
PATIENCE = 5.0


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve(name: str, *ports: str) -> None:
    for port in ports:
        listener = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
        threading.Thread(target=answer, args=(name, listener), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


def answer(name: str, listener: socket.socket) -> None:
    while True:
        connection, peer = listener.accept()
        connection.sendall(f"{name} saw {peer[0].replace('::ffff:', '')}".encode())
        connection.close()


def reach(address: str, port: str, seconds: str = "2") -> None:
    try:
        with socket.create_connection((address, int(port)), timeout=float(seconds)) as connection:
            print(connection.recv(200).decode(errors="replace").partition("\r")[0])
    except TimeoutError:
        print("silent")
    except OSError:
        print("refused")


def resolve(address: str) -> None:
    with socket.socket(family(address), socket.SOCK_DGRAM) as client:
        client.settimeout(15)  # nobody expects silence here
        client.connect((address, 53))
        client.send(b"\0\1\1\0\0\1\0\0\0\0\0\0\tlocalhost\0\0\1\0\1")  # RFC 1035, section 4.1
        try:
            print("answered" if client.recv(512).startswith(b"\0\1") else "nonsense")
        except OSError:
            print("silent")


def echo(address: str) -> None:
    with socket.socket(family(address), socket.SOCK_DGRAM) as server:
        server.bind((address, PORT))
        print("ready", flush=True)
        while sys.stdin not in (ready := select.select([server, sys.stdin], [], [])[0]):
            server.sendto(*server.recvfrom(100)) if server in ready else None


def listen(interface: str) -> None:
    seen = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:  # ETH_P_ALL
        wire.bind((interface, 0))
        print("ready", flush=True)
        while sys.stdin not in (ready := select.select([wire, sys.stdin], [], [])[0]) or wire in ready:
            frame = wire.recv(2000)
            kind = {b"\x08\x00": ("ip", 26), b"\x08\x06": ("arp", 28)}.get(frame[12:14])
            if kind:
                seen.add(f"{frame[6:12].hex(':')} {kind[0]} {socket.inet_ntoa(frame[kind[1] : kind[1] + 4])}")
    print("\n".join(sorted(seen)))


def ping(address: str) -> None:
    sent = got = 0
    with socket.socket(family(address), socket.SOCK_DGRAM) as client:
        client.connect((address, PORT))
        until = None
        while until is None or (got < sent and time.monotonic() < until):
            ready = select.select([client] if until else [client, sys.stdin], [], [], PAUSE)[0]
            if sys.stdin in ready:
                until = time.monotonic() + PATIENCE
            try:
                if client in ready:
                    client.recv(100)
                    got += 1
                elif until is None:
                    client.send(b"x")
                    sent += 1
            except ConnectionRefusedError as error:  # an ICMP error came for an earlier one, which is lost
                print(f"{sent}: {error}", file=sys.stderr)
    print(sent, got)


if __name__ == "__main__":
    {"serve": serve, "reach": reach, "resolve": resolve, "echo": echo, "listen": listen, "ping": ping}[sys.argv[1]](*sys.argv[2:])
