"""A host that speaks MPLS-in-IP (protocol 137) by raw socket, where the kernel has no MPLS: pings.

Runs by itself inside a container with nothing but Python's standard library: no import of the lab.

    mpls_host.py answer LOCAL PEER INNER IN=OUT ...        answer pings to INNER with label IN by label OUT
    mpls_host.py ping LOCAL PEER INNER LABEL TARGET COUNT  ping TARGET from INNER; prints "N received"
"""

import select
import socket
import struct
import sys
import time

MPLS_IN_IP = 137


def checksum(octets: bytes) -> int:
    """RFC 1071."""
    octets += bytes(len(octets) % 2)
    total = sum(int.from_bytes(octets[at : at + 2], "big") for at in range(0, len(octets), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def icmp_packet(source: str, destination: str, kind: int, rest: bytes) -> bytes:
    """IPv4 with ICMP; `rest` follows the checksum of ICMP."""
    body = struct.pack("!BBH", kind, 0, 0) + rest
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 1, 0) + addresses
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def labelled(label: int, packet: bytes) -> bytes:
    return struct.pack("!I", label << 12 | 1 << 8 | 64) + packet


def receive(raw: socket.socket) -> tuple[int, bytes, bytes, int, bytes]:
    """One packet: label, inner source and destination, ICMP type and what follows ICMP's checksum."""
    octets = raw.recv(65535)
    stack = octets[(octets[0] & 15) * 4 :]
    packet = stack[4:]
    icmp = packet[(packet[0] & 15) * 4 :]
    return int.from_bytes(stack[:3], "big") >> 4, packet[12:16], packet[16:20], icmp[0], icmp[4:]


def answer(raw: socket.socket, peer: str, inner: str, labels: dict[int, int]) -> None:
    print("ready", flush=True)
    while True:
        label, source, destination, kind, rest = receive(raw)
        print(f"label {label} type {kind} from {socket.inet_ntoa(source)}", flush=True)
        if kind == 8 and destination == socket.inet_aton(inner) and label in labels:
            reply = icmp_packet(inner, socket.inet_ntoa(source), 0, rest)
            raw.sendto(labelled(labels[label], reply), (peer, 0))


def ping(raw: socket.socket, peer: str, inner: str, label: int, target: str, count: int) -> int:
    received = 0
    for number in range(1, count + 1):
        rest = struct.pack("!HH", 0x4D50, number) + bytes(56)
        raw.sendto(labelled(label, icmp_packet(inner, target, 8, rest)), (peer, 0))
        end = time.monotonic() + 2
        while select.select([raw], [], [], max(0.0, end - time.monotonic()))[0]:
            _, source, _, kind, answered = receive(raw)
            if kind == 0 and answered == rest and source == socket.inet_aton(target):
                received += 1
                break
    return received


def main() -> None:
    mode, local, peer, inner, *more = sys.argv[1:]
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, MPLS_IN_IP)
    raw.bind((local, 0))
    if mode == "answer":
        pairs = (pair.split("=") for pair in more)
        answer(raw, peer, inner, {int(arriving): int(leaving) for arriving, leaving in pairs})
    label, target, count = more
    print(f"{ping(raw, peer, inner, int(label), target, int(count))} received")


if __name__ == "__main__":
    main()
