"""endpoint/offload.py: what the kernel makes of a super-packet is, octet for octet, what it was made of."""

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.offload import NO_OFFLOAD, VNET_HEADER_OCTETS, coalesce
from endpoint.tun import Tun
from mpls.ip import TCP, internet_checksum, pseudo_header

FIN, SYN, PSH, ACK, ECE, CWR = 0x01, 0x02, 0x08, 0x10, 0x40, 0x80
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")


def segment(octets: bytes) -> list[bytes]:
    """What Linux makes of a packet with its virtio_net_hdr: tcp_gso_segment() and inet_gso_segment()."""
    flags, kind, head_octets, size, _, _ = struct.unpack_from("=BBHHHH", octets)
    packet = octets[VNET_HEADER_OCTETS:]
    assert flags == 0
    if kind == 0:
        return [packet]
    ip_octets = {1: 20, 4: 40}[kind]
    total = int.from_bytes(packet[2:4] if kind == 1 else packet[4:6], "big") + (0 if kind == 1 else 40)
    assert total == len(packet) <= 65535 and packet[ip_octets + 12] >> 4 == (head_octets - ip_octets) // 4
    payload = packet[head_octets:]
    assert size < len(payload)
    segments = []
    for offset in range(0, len(payload), size):
        part = payload[offset : offset + size]
        head = bytearray(packet[:head_octets])
        tcp_at = ip_octets
        sequence = int.from_bytes(head[tcp_at + 4 : tcp_at + 8], "big") + offset
        head[tcp_at + 4 : tcp_at + 8] = (sequence % 2**32).to_bytes(4, "big")
        if offset + size < len(payload):
            head[tcp_at + 13] &= ~(FIN | PSH)
        segments.append(with_checksums(bytes(head) + part, offset // size))
    return segments


def with_checksums(packet: bytes, later: int = 0) -> bytes:
    """The lengths and checksums of a TCP/IP packet set, and its identification so much later."""
    octets = bytearray(packet)
    ip_octets = 20 if packet[0] >> 4 == 4 else 40
    if ip_octets == 20:
        identification = int.from_bytes(octets[4:6], "big") + later
        octets[2:4] = len(octets).to_bytes(2, "big")
        octets[4:6] = (identification % 2**16).to_bytes(2, "big")
        octets[10:12] = b"\0\0"
        octets[10:12] = internet_checksum(bytes(octets[:20])).to_bytes(2, "big")
        ends = bytes(octets[12:16]), bytes(octets[16:20])
    else:
        octets[4:6] = (len(octets) - 40).to_bytes(2, "big")
        ends = bytes(octets[8:24]), bytes(octets[24:40])
    octets[ip_octets + 16 : ip_octets + 18] = b"\0\0"
    covered = pseudo_header(*ends, TCP, len(octets) - ip_octets) + bytes(octets[ip_octets:])
    octets[ip_octets + 16 : ip_octets + 18] = internet_checksum(covered).to_bytes(2, "big")
    return bytes(octets)


def tcp(
    payload: bytes,
    *,
    version: int = 4,
    sequence: int = 1,
    identification: int = 1,
    flags: int = ACK,
    tos: int = 0,
    ttl: int = 64,
    fragment: int = 0x4000,
    window: int = 500,
    port: int = 5201,
    options: bytes = TIMESTAMPS,
    destination: int = 2,
) -> bytes:
    if version == 4:
        addresses = bytes((10, 1, 0, 1, 10, 2, 0, destination))
        head = struct.pack(
            ">BBHHHBBH8s", 0x45, tos, 0, identification % 2**16, fragment, ttl, TCP, 0, addresses
        )
    else:
        addresses = bytes.fromhex(
            "20010db8000100000000000000000001" + "20010db80002000000000000000000"
        ) + bytes((destination,))
        head = struct.pack(">IHBB32s", 6 << 28 | tos << 20, 0, TCP, ttl, addresses)
    offset = (20 + len(options)) // 4 << 4
    upper = struct.pack(">HHIIBBHHH", 40000, port, sequence % 2**32, 7, offset, flags, window, 0, 0)
    return with_checksums(head + upper + options + payload)


def stream(
    count: int, size: int, *, version: int = 4, sequence: int = 1, identification: int = 1
) -> list[bytes]:
    return [
        tcp(
            bytes([n % 256]) * size,
            version=version,
            sequence=sequence + n * size,
            identification=identification + n,
        )
        for n in range(count)
    ]


def written(packets: list[bytes], own: tuple[bytes, ...] = ()) -> list[bytes]:
    writes = list(coalesce(packets, own))
    assert sum(count for _, count in writes) == len(packets)
    return [b"".join(pieces) for pieces, _ in writes]


def taken_apart(packets: list[bytes], own: tuple[bytes, ...] = ()) -> list[bytes]:
    return [one for octets in written(packets, own) for one in segment(octets)]


# Packets as they follow each other in a TCP stream, with here and there something that must not be put together.
@st.composite
def traffic(draw: st.DrawFn) -> list[bytes]:
    version = draw(st.sampled_from((4, 6)))
    size = draw(st.sampled_from((1, 2, 7, 536, 1348, 1349)))
    sequence = draw(st.sampled_from((0, 1, 2**32 - 3 * size, 2**32 - 1, 12345)))
    identification = draw(st.sampled_from((0, 1, 0xFFFD, 0xFFFF, 31000)))
    packets: list[bytes] = []
    for _ in range(draw(st.integers(1, 12))):
        odd = draw(st.sampled_from((None,) * 12 + ("flags", "field", "size", "junk", "flip", "repeat")))
        octets, extra = size, {}
        if odd == "flags":
            extra["flags"] = draw(
                st.sampled_from((ACK | PSH, ACK | FIN | PSH, ACK | ECE, SYN, ACK | CWR, 0x30))
            )
        elif odd == "field":
            name, value = draw(
                st.sampled_from(
                    (
                        ("tos", 3),
                        ("ttl", 63),
                        ("window", 501),
                        ("port", 1),
                        ("fragment", 0),
                        ("fragment", 0x2000),
                        ("fragment", 0xC000),
                        ("identification", 9),
                        ("sequence", 99),
                        ("destination", 3),
                    )
                )
            )
            extra[name] = value
        elif odd == "size":
            octets = draw(st.integers(0, 1400))
        payload = draw(st.binary(min_size=min(octets, 4), max_size=min(octets, 4))).ljust(octets, b"x")
        fields = {"version": version, "sequence": sequence, "identification": identification} | extra
        if odd == "field" and draw(st.booleans()):
            fields["options"] = b"\1\1\1\1"  # type: ignore[assignment]
        packet = tcp(payload, **fields)  # type: ignore[arg-type]
        if odd == "flip":
            place = draw(st.integers(0, 8 * len(packet) - 1))
            flipped = int.from_bytes(packet, "big") ^ 1 << place
            packet = flipped.to_bytes(len(packet), "big")
        packets.append(packet)
        if odd == "junk":
            packets.append(draw(st.binary(max_size=60)) if draw(st.booleans()) else packet + b"\0")
        if odd == "repeat":
            packets.append(packet)
        sequence, identification = sequence + octets, identification + 1
    return packets


@settings(max_examples=400, deadline=None)
@given(traffic())
def test_taken_apart_it_is_octet_for_octet_what_came(packets: list[bytes]) -> None:
    assert taken_apart(packets) == packets


@settings(max_examples=100, deadline=None)
@given(traffic())
def test_a_super_packet_has_a_right_checksum_exactly_when_its_segments_have(packets: list[bytes]) -> None:
    own = (bytes((10, 2, 0, 2)), tcp(b"", version=6)[24:40])
    writes = list(coalesce(packets, own))
    assert sum(count for _, count in writes) == len(packets)
    at = 0
    for pieces, count in writes:
        octets = b"".join(pieces)
        of_run, at = packets[at : at + count], at + count
        if count > 1:
            assert is_intact(octets[VNET_HEADER_OCTETS:]) == all(map(is_intact, of_run))
            assert [with_checksums(one) for one in of_run] == segment(octets)


def is_intact(packet: bytes) -> bool:
    """As a TCP that receives it finds it."""
    ip_octets = 20 if packet[0] >> 4 == 4 else 40
    source, destination = (packet[12:16], packet[16:20]) if ip_octets == 20 else (packet[8:24], packet[24:40])
    covered = pseudo_header(source, destination, TCP, len(packet) - ip_octets) + packet[ip_octets:]
    return internet_checksum(covered) == 0


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [1348, 1349])
def test_a_stream_goes_in_as_few_as_can_be(version: int, size: int) -> None:
    packets = stream(100, size, version=version)
    assert len(written(packets)) == 3
    assert taken_apart(packets) == packets


@pytest.mark.parametrize("flag", [PSH, FIN])
def test_push_and_fin_end_a_run_and_are_kept(flag: int) -> None:
    packets = stream(6, 100)
    pushed = bytearray(packets[2])
    pushed[33] |= flag
    packets[2] = with_checksums(bytes(pushed))
    assert [len(segment(one)) for one in written(packets)] == [3, 3]
    assert taken_apart(packets) == packets


def test_a_shorter_segment_is_the_last_of_its_run() -> None:
    packets = [*stream(3, 100), tcp(b"short", sequence=301, identification=4)]
    packets.append(tcp(bytes(100), sequence=306, identification=5))
    assert [len(segment(one)) for one in written(packets)] == [4, 1]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "field",
    [
        {"tos": 3},
        {"ttl": 63},
        {"window": 501},
        {"port": 5202},
        {"sequence": 102},
        {"destination": 3},
        {"flags": ACK | ECE},
        {"flags": ACK | CWR},
        {"flags": ACK | 0x20},
        {"options": TIMESTAMPS[:-1] + b"\3"},
        {"options": b""},
    ],
    ids=str,
)
def test_one_that_differs_in_a_header_field_goes_singly(version: int, field: dict[str, Any]) -> None:
    packets = stream(3, 100, version=version)
    packets[1] = tcp(bytes(100), **{"version": version, "sequence": 101, "identification": 2} | field)
    assert len(written(packets)) == 3
    assert taken_apart(packets) == packets


@pytest.mark.parametrize("field", [{"fragment": 0}, {"fragment": 0x6000}, {"identification": 1}], ids=str)
def test_one_that_differs_in_how_ipv4_may_cut_it_goes_singly(field: dict[str, Any]) -> None:
    packets = stream(3, 100)
    packets[1] = tcp(bytes(100), **{"sequence": 101, "identification": 2} | field)
    assert len(written(packets)) == 3


def test_fragments_go_singly() -> None:
    packets = [tcp(bytes(96), sequence=1 + 96 * n, identification=n, fragment=0x2000) for n in range(3)]
    assert len(written(packets)) == 3


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({"identification": 0xFFFF}, (1 << 8 * 46) - (1 << 8 * 40)),
        ({"sequence": 2**32 - 50}, (1 << 8 * 46) - (1 << 8 * 40)),
    ],
    ids=str,
)
def test_a_counter_that_begins_anew_does_not_run_over(fields: dict[str, Any], step: int) -> None:
    """What a sum over the whole header leads to is another packet: nothing that could follow."""
    first = tcp(bytes(100), **fields)
    number = int.from_bytes(first[:52], "big") + step + (100 << 8 * 24)
    second = number.to_bytes(52, "big") + bytes(100)
    assert written([first, second]) == [NO_OFFLOAD + first, NO_OFFLOAD + second]
    with_own = written([first, second], (first[16:20],))
    assert with_own == [NO_OFFLOAD + first, NO_OFFLOAD + second]


def test_the_checksum_of_a_shorter_last_does_not_run_over() -> None:
    # Both IPv4 checksums are searched for: one just below its largest value, and what it would run over to.
    first = next(
        packet
        for port in range(256, 65536)
        if int.from_bytes((packet := tcp(bytes(100), identification=port))[10:12], "big") > 0xFFF0
    )
    number = int.from_bytes(first[:52], "big") + (1 << 8 * 46) - (1 << 8 * 40) + (100 << 8 * 24)
    number += (50 << 8 * 40) - (50 << 8 * 48)
    second = number.to_bytes(52, "big") + bytes(50)
    assert second[9] == TCP + 1
    assert len(written([first, second], (first[16:20],))) == 2


def test_a_mark_of_congestion_stays_with_its_packet() -> None:
    packets = stream(4, 100)
    packets[2] = tcp(bytes(100), sequence=201, identification=3, tos=3)
    assert [len(segment(one)) for one in written(packets)] == [2, 1, 1]
    assert taken_apart(packets) == packets


@pytest.mark.parametrize(
    "packet",
    [b"", b"\x45", bytes(40), b"\x45" + bytes(39), b"\x60" + bytes(59), b"\xff" * 80, tcp(b"") + b"padding"],
)
def test_what_is_malformed_goes_singly(packet: bytes) -> None:
    assert written([packet, packet]) == [NO_OFFLOAD + packet] * 2


def test_a_damaged_segment_for_somebody_else_goes_singly() -> None:
    packets = stream(4, 100)
    packets[1] = packets[1][:-1] + b"?"
    assert [len(segment(one)) for one in written(packets)] == [1, 1, 2]
    assert taken_apart(packets) == packets


@pytest.mark.root
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [1000, 1001])
async def test_the_kernel_takes_it_apart_to_the_same_packets(
    namespace: str, ip: Callable[..., str], version: int, size: int
) -> None:
    """Forwarded from one device to another, by a kernel that has to cut it up."""
    one = Tun.create("red0", netns=namespace, addresses=["10.1.0.254/24", "2001:db8:1::fe/64"], mtu=1400)
    two = Tun.create("red1", netns=namespace, addresses=["10.2.0.254/24", "2001:db8:2::fe/64"], mtu=1400)
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        ip("netns", "exec", namespace, "sysctl", "-qw", f"{name}=1")
    packets = stream(30, size, version=version, identification=0xFFF0)
    packets.append(tcp(b"end", version=version, sequence=30 * size + 1, identification=14, flags=ACK | PSH))
    came: list[bytes] = []
    arrived = asyncio.Event()

    def on_packets(batch: list[bytes]) -> None:
        came.extend(packet for packet in batch if packet[9 if packet[0] >> 4 == 4 else 6] == TCP)
        if len(came) >= len(packets):
            arrived.set()

    two.start(on_packets)
    one.write_batch(packets)
    async with asyncio.timeout(5):
        await arrived.wait()
    ttl_at = 8 if version == 4 else 7
    expected = [
        with_checksums(packet[:ttl_at] + bytes((packet[ttl_at] - 1,)) + packet[ttl_at + 1 :])
        for packet in packets
    ]
    assert came == expected
    assert not one.drops
    assert len(written(packets)) < len(packets) / 8
    one.close()
    two.close()
