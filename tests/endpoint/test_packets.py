"""Packets to explain: hex octets, pcap and pcapng in either byte order, bounded whatever the file says."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from endpoint.capture import Capture
from endpoint.packets import MAX_PACKET_OCTETS, GivenPacket, PacketError, read_packets
from mpls.ip import build_ip
from mpls.labels import LabelStack

IP = build_ip(bytes(4), bytes(4), 17, b"12345678")
IP6 = build_ip(bytes(16), bytes(16), 17, b"12345678")
LABELLED = LabelStack.push(500, 501).encode() + IP
MAC = bytes.fromhex("020000000001020000000002")


def ethernet(ethertype: int, payload: bytes, *vlans: int) -> bytes:
    tags = b"".join(struct.pack(">HH", 0x8100, vlan) for vlan in vlans)
    return MAC + tags + struct.pack(">H", ethertype) + payload


def pcap(*records: bytes, link: int = 101, order: str = "<", there: int | None = None) -> bytes:
    made = struct.pack(f"{order}IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for record in records:
        made += struct.pack(f"{order}IIII", 0, 0, len(record), there or len(record)) + record
    return made


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", 12 + len(body))
    return struct.pack(f"{order}I", kind) + length + body + length


def pcapng(*records: bytes, link: int = 101, order: str = "<", simple: bool = False) -> bytes:
    made = block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))
    made += block(order, 1, struct.pack(f"{order}HHI", link, 0, 0))
    for record in records:
        head = struct.pack(f"{order}I", len(record))
        if not simple:
            head = struct.pack(f"{order}IIIII", 0, 0, 0, len(record), len(record))
        made += block(order, 3 if simple else 6, head + record)
    return made


def write(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "packets.pcap"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("text", [IP.hex(), IP.hex(" "), IP.hex(":"), "0x" + IP.hex().upper()])
def test_hex_may_be_written_in_several_ways(text: str) -> None:
    assert read_packets(text) == (GivenPacket(1, IP),)


@pytest.mark.parametrize(
    ("octets", "packet"),
    [
        (IP6, GivenPacket(1, IP6)),
        (ethernet(0x0800, IP), GivenPacket(1, IP)),
        (ethernet(0x86DD, IP6, 5), GivenPacket(1, IP6)),
        (ethernet(0x8847, LABELLED, 5, 6), GivenPacket(1, LABELLED, is_labelled=True)),
        (LABELLED, GivenPacket(1, LABELLED, is_labelled=True)),
        (b"\x45\0", GivenPacket(1, b"\x45\0")),  # what it is not, explain says
    ],
)
def test_hex_may_be_a_packet_a_frame_or_a_label_stack(octets: bytes, packet: GivenPacket) -> None:
    assert read_packets(octets.hex()) == (packet,)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_formats_are_read_in_either_byte_order(tmp_path: Path, order: str) -> None:
    expected = (GivenPacket(1, IP), GivenPacket(2, IP6))
    assert read_packets(write(tmp_path, pcap(IP, IP6, order=order))) == expected
    assert read_packets(write(tmp_path, pcapng(IP, IP6, order=order))) == expected
    assert read_packets(write(tmp_path, pcapng(IP, IP6, order=order, simple=True))) == expected


@pytest.mark.parametrize(
    ("link", "frame", "is_labelled"),
    [
        (1, ethernet(0x0800, IP), False),
        (1, ethernet(0x8847, IP), True),
        (12, IP, False),
        (219, IP, True),
        (113, bytes(14) + b"\x08\0" + IP, False),
        (276, b"\x88\x47" + bytes(18) + IP, True),
    ],
)
def test_link_type_says_what_a_frame_is(tmp_path: Path, link: int, frame: bytes, is_labelled: bool) -> None:
    expected = (GivenPacket(1, IP, is_labelled),)
    assert read_packets(write(tmp_path, pcap(frame, link=link))) == expected


def test_other_protocols_are_left_out_and_numbers_stay(tmp_path: Path) -> None:
    frames = ethernet(0x0806, b"arp"), ethernet(0x0800, IP)
    assert read_packets(write(tmp_path, pcap(*frames, link=1))) == (GivenPacket(2, IP),)


def test_octets_that_the_capture_left_away_are_filled_up(tmp_path: Path) -> None:
    (packet,) = read_packets(write(tmp_path, pcap(IP[:24], there=len(IP))))
    assert packet.octets == IP[:24] + bytes(len(IP) - 24)
    (packet,) = read_packets(write(tmp_path, pcap(IP[:24], there=0xFFFFFFFF)))
    assert len(packet.octets) == MAX_PACKET_OCTETS


def test_our_own_captures_are_read(tmp_path: Path) -> None:
    path = tmp_path / "own.pcapng"
    capture = Capture(path)
    capture.write_packet(IP, interface="red0", comment="first")
    capture.write_packet(IP6)
    capture.close()
    assert read_packets(str(path)) == (GivenPacket(1, IP), GivenPacket(2, IP6))


def test_no_more_packets_are_read_than_asked_for(tmp_path: Path) -> None:
    file = write(tmp_path, pcap(*[IP] * 200))
    assert len(read_packets(file)) == 100
    assert len(read_packets(file, 3)) == 3


@pytest.mark.parametrize(
    "data", [b"", b"no capture", pcap(), pcap()[:20], pcap(IP)[:-1], pcap(IP, link=9), pcapng()]
)
def test_file_without_packets_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(PacketError):
        read_packets(write(tmp_path, data))


@pytest.mark.parametrize("text", ["", "nothing.pcap", "\0", "00" * (MAX_PACKET_OCTETS + 1), "x" * 5000, "."])
def test_what_is_neither_octets_nor_a_file_is_refused(text: str) -> None:
    with pytest.raises(PacketError):
        read_packets(text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([pcap(IP, link=1), pcapng(IP), pcapng(IP, simple=True)]),
    st.data(),
)
def test_damaged_file_never_ends_in_a_traceback(
    tmp_path: Path, noise: bytes, whole: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(whole)))
    for damaged in (whole[:at] + noise + whole[at:], whole[:at] + noise + whole[at + len(noise) :]):
        try:
            packets = read_packets(write(tmp_path, damaged))
        except PacketError:
            continue
        assert len(packets) <= 100 and all(len(one.octets) <= MAX_PACKET_OCTETS for one in packets)
