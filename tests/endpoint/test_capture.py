"""endpoint/capture.py: what it writes is read back by scapy, another implementation of pcapng and IP."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, in4_chksum
from scapy.layers.inet6 import IPv6, in6_chksum
from scapy.packet import Packet
from scapy.utils import PcapNgReader

from endpoint.capture import Capture, udp_datagram

PE1, PE2 = ("192.0.2.1", 4500), ("192.0.2.2", 4500)


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Capture]:
    opened = Capture(tmp_path / "test.pcapng")
    yield opened
    opened.close()


def packets_of(capture: Capture) -> list[Packet]:
    capture.flush()
    with PcapNgReader(str(capture.path)) as reader:
        return list(reader)


def test_udp_datagram_is_read_back_with_its_headers_and_comment(capture: Capture) -> None:
    capture.write_udp(PE1, PE2, b"hello", comment="the first", at_ns=1_700_000_000_123_456_789)
    (packet,) = packets_of(capture)
    assert (packet[IP].src, packet[IP].dst, packet[UDP].sport, packet[UDP].dport) == (
        PE1[0],
        PE2[0],
        4500,
        4500,
    )
    assert bytes(packet[UDP].payload) == b"hello"
    assert packet.comments == [b"the first"]
    assert packet.time * 10**9 == pytest.approx(1_700_000_000_123_456_789, abs=1)


def test_ipv6_and_raw_protocols_are_written(capture: Capture) -> None:
    capture.write_udp(("2001:db8::1", 500), ("2001:db8::2", 500), b"odd")
    capture.write_ip("192.0.2.1", "192.0.2.2", 50, bytes(40))
    capture.write_packet(bytes(IP(src="10.1.0.1", dst="10.2.0.1")), interface="red")
    udp6, esp, customer = packets_of(capture)
    assert udp6[IPv6].src == "2001:db8::1"
    assert esp[IP].proto == 50
    assert esp[IP].flags.DF
    assert customer[IP].dst == "10.2.0.1"
    assert (udp6.sniffed_on, customer.sniffed_on) == ("underlay", "red")


@given(payload=st.binary(max_size=64))
def test_udp_checksums_are_what_scapy_computes(payload: bytes) -> None:
    four = IP(src=PE1[0], dst=PE2[0])
    assert in4_chksum(17, four, udp_datagram(PE1, PE2, payload)) in (0, 0xFFFF)
    six = IPv6(src="2001:db8::1", dst="2001:db8::2")
    datagram = udp_datagram(("2001:db8::1", 1), ("2001:db8::2", 2), payload)
    assert in6_chksum(17, six, datagram) in (0, 0xFFFF)


def test_udp_checksum_of_zero_is_sent_as_ones() -> None:
    # RFC 768: zero on the wire would say that there is no checksum.
    base = int.from_bytes(udp_datagram(PE1, PE2, bytes(2))[6:8], "big")
    assert udp_datagram(PE1, PE2, base.to_bytes(2, "big"))[6:8] == b"\xff\xff"


def test_addresses_of_two_families_are_refused(capture: Capture) -> None:
    with pytest.raises(ValueError, match="family"):
        capture.write_ip("192.0.2.1", "2001:db8::1", 17, bytes(8))


def test_file_stays_below_its_bound(tmp_path: Path) -> None:
    bounded = Capture(tmp_path / "bounded.pcapng", max_octets=20_000)
    for _ in range(100):
        bounded.write_udp(PE1, PE2, bytes(1000), comment="é" * 4000)
    bounded.close()
    assert bounded.dropped > 0
    assert bounded.packets + bounded.dropped == 100
    assert bounded.path.stat().st_size <= 20_000
    with PcapNgReader(str(bounded.path)) as reader:
        assert len(list(reader)) == bounded.packets


def test_interfaces_beyond_the_bound_are_written_as_the_first(capture: Capture) -> None:
    for number in range(80):
        capture.write_ip("192.0.2.1", "192.0.2.2", 50, b"", interface=f"vrf{number}")
    assert packets_of(capture)[-1].sniffed_on == "vrf0"


def test_packets_after_close_are_counted(capture: Capture) -> None:
    capture.close()
    capture.write_udp(PE1, PE2, b"late")
    assert (capture.packets, capture.dropped) == (0, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_ends_the_capture_and_nothing_else() -> None:
    full = Capture(Path("/dev/full"))
    full.write_udp(PE1, PE2, bytes(1000))
    full.flush()
    assert full.failure == "No space left on device"
    full.write_udp(PE1, PE2, b"after")
    assert full.dropped == 1
    full.close()


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_reads_comment_direction_and_good_checksums(capture: Capture) -> None:
    capture.write_udp(("127.0.0.1", 9), ("127.0.0.2", 9), b"x", comment="why", direction="outbound")
    capture.close()
    options = ["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    done = subprocess.run(
        ["tshark", "-r", str(capture.path), *options, "-T", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    layers = json.loads(done.stdout)[0]["_source"]["layers"]
    assert layers["udp"]["udp.checksum.status"] == "1"
    assert layers["ip"]["ip.checksum.status"] == "1"
    assert "why" in done.stdout
    assert layers["frame"]["frame.packet_flags"] == "0x00000002"
