"""Packets that are made to fit the Tunnel MTU: TCP's MSS and fragments of IPv4. Scapy is the independent codec."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, IPOption_LSRR, IPOption_Timestamp, defragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from mpls.fit import Fitting, Fragment, OuterDf, clamp_mss, fit, fragment_ipv4
from mpls.ip import IpHeader

Options = list[tuple[str, object]]
V4, V6 = IP(src="10.1.0.9", dst="10.2.0.9"), IPv6(src="2001:db8:1::9", dst="2001:db8:2::9")


def octets(packet: Packet) -> bytes:
    return bytes(packet)


def reread(packet: bytes) -> Packet:
    """With length and checksums as the octets have them."""
    return IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)


def recomputed(packet: bytes) -> bytes:
    """The same with checksums that scapy made."""
    read = reread(packet)
    for layer in (IP, TCP):
        if layer in read:
            del read[layer].chksum
    return bytes(read)


@pytest.mark.parametrize("network", [V4, V6, IP(src="10.1.0.9", dst="10.2.0.9", options=[IPOption_LSRR()])])
@pytest.mark.parametrize("flags", ["S", "SA", "SEC"])
@pytest.mark.parametrize(
    "before", [[], [("NOP", None)], [("NOP", None), ("SAckOK", b"")], [("Timestamp", (5, 0)), ("NOP", None)]]
)
def test_syn_in_either_direction_gets_an_mss_that_fits(network: Packet, flags: str, before: Options) -> None:
    syn = octets(
        network / TCP(sport=1024, dport=80, flags=flags, options=[*before, ("MSS", 1460)]) / b"early"
    )
    (clamped,) = clamp_mss([syn], 1442)
    mss = dict(reread(clamped)[TCP].options)["MSS"]
    assert mss == 1442 - (60 if syn[0] >> 4 == 6 else 40)
    assert clamped == recomputed(clamped), "the checksum was moved as one would make it anew"
    assert len(clamped) == len(syn)
    assert bytes(reread(clamped)[TCP].payload) == b"early"
    assert clamp_mss([clamped], 1442) == [clamped], "what is low enough stays"


@pytest.mark.parametrize(
    "packet",
    [
        octets(V4 / TCP(flags="A", options=[("MSS", 1460)])),
        octets(V4 / TCP(flags="S", options=[("MSS", 1200)])),
        octets(V4 / TCP(flags="S")),
        octets(V4 / TCP(flags="S", options=[("EOL", None), ("MSS", 1460)])),
        octets(IP(src="10.1.0.9", dst="10.2.0.9", frag=3) / TCP(flags="S", options=[("MSS", 1460)])),
        octets(IP(src="10.1.0.9", dst="10.2.0.9", proto=17) / TCP(flags="S", options=[("MSS", 1460)])),
        octets(V4 / TCP(flags="S", options=[("MSS", 1460)]))[:33],
        octets(V6 / TCP(flags="S", options=[("MSS", 1460)]))[:50],
        octets(V4 / TCP(flags="S", dataofs=6) / b"\x02\x00\x05\xb4"),
        octets(V4 / TCP(flags="S", dataofs=6) / b"\x02\x03\x05\xb4"),
        octets(V4 / TCP(flags="S", dataofs=6) / b"\x03\x09\x02\x04"),
        octets(V4 / TCP(flags="S", dataofs=15) / b"\x02"),
        octets(V4 / Raw(b"no TCP at all, to be sure about it")),
    ],
)
def test_what_is_no_syn_with_a_large_mss_stays_as_it_is(packet: bytes) -> None:
    assert clamp_mss([packet], 1442) == [packet]


def test_syn_behind_extension_headers_is_found() -> None:
    syn = octets(V6 / IPv6ExtHdrDestOpt() / TCP(flags="S", options=[("MSS", 1440)]))
    (clamped,) = clamp_mss([syn], 1400)
    assert dict(IPv6(clamped)[TCP].options)["MSS"] == 1340
    assert clamped == recomputed(clamped)
    first = octets(V6 / IPv6ExtHdrFragment(m=1) / TCP(flags="S", options=[("MSS", 1440)]))
    assert clamp_mss([first], 1400) != [first], "a first fragment has the option, and the checksum of all"


def test_of_many_packets_only_the_syns_are_touched() -> None:
    data = octets(V4 / TCP(flags="A") / b"data")
    syn = octets(V4 / TCP(flags="S", options=[("MSS", 1460)]))
    packets = [data, syn, data]
    clamped = clamp_mss(packets, 1442)
    assert clamped[0] is data and clamped[2] is data
    assert dict(IP(clamped[1])[TCP].options)["MSS"] == 1402
    assert packets[1] == syn, "the caller's list is his"


@given(st.integers(1, 0xFFFF), st.integers(41, 9000), st.integers(0, 3), st.booleans(), st.binary(max_size=9))
def test_checksum_moves_as_if_it_was_made_anew(
    mss: int, room: int, shift: int, ipv6: bool, data: bytes
) -> None:
    options: Options = [("NOP", None)] * shift + [("MSS", mss)]
    syn = octets((V6 if ipv6 else V4) / TCP(flags="S", options=options) / data)
    (clamped,) = clamp_mss([syn], room)
    assert clamped == recomputed(clamped)
    assert dict(reread(clamped)[TCP].options)["MSS"] == min(mss, max(1, room - (60 if ipv6 else 40)))


@given(st.integers(0, 3000), st.integers(28, 1500), st.booleans(), st.integers(0, 100), st.booleans())
def test_fragments_make_the_packet_again(
    size: int, room: int, has_options: bool, at: int, more: bool
) -> None:
    options = [IPOption_Timestamp(), IPOption_LSRR(routers=["10.9.9.9"])] if has_options else []
    packet = octets(
        IP(
            src="10.1.0.9",
            dst="10.2.0.9",
            id=7,
            proto=17,
            ttl=9,
            tos=0xB9,
            frag=at,
            flags=int(more),
            options=options,
        )
        / Raw(bytes(n % 251 for n in range(size)))
    )
    fragments = fragment_ipv4(packet, room)
    if room < (packet[0] & 15) * 4 + 8 or not size:
        assert not fragments
        return
    read = [IP(one) for one in fragments]
    assert max(map(len, fragments)) <= room
    assert all(not isinstance(IpHeader.parse(one), int | str) for one in fragments), "lengths, checksum"
    assert b"".join(bytes(one.payload) for one in read) == bytes(IP(packet).payload)
    assert read[0].frag == at
    assert all(b.frag * 8 == a.frag * 8 + len(a.payload) for a, b in pairwise(read))
    assert [bool(one.flags.MF) for one in read] == [True] * (len(read) - 1) + [more]
    assert {(one.id, one.tos, one.ttl, one.proto) for one in read} == {(7, 0xB9, 9, 17)}
    if has_options and len(read) > 1:
        assert [type(option) for option in read[1].options if option.option] == [IPOption_LSRR]
    if not at and not more:
        (whole,) = defragment(IP(one) for one in fragments) if len(read) > 1 else (read[0],)
        assert bytes(whole.payload) == bytes(IP(packet).payload)


def test_fragment_beyond_the_longest_packet_is_not_cut_into_first_ones() -> None:
    """Its offset would begin anew at 0: a header where selectors have seen none."""
    packet = octets(IP(src="10.1.0.9", dst="10.2.0.9", proto=17, frag=0x1FFF) / Raw(bytes(1400)))
    assert fragment_ipv4(packet, 600) == []
    last = octets(IP(src="10.1.0.9", dst="10.2.0.9", proto=17, frag=8014) / Raw(bytes(1400)))
    assert [IP(one).frag for one in fragment_ipv4(last, 600)] == [8014, 8086, 8158]


def test_policy_says_what_becomes_of_a_large_packet() -> None:
    free = octets(IP(src="10.1.0.9", dst="10.2.0.9", id=7) / Raw(bytes(2000)))
    fixed = octets(IP(src="10.1.0.9", dst="10.2.0.9", flags="DF") / Raw(bytes(2000)))
    six = octets(V6 / Raw(bytes(2000)))
    assert fit(Fitting(), [free, b"small"], 1442) == ([b"small"], [free])
    cut, too_big = fit(Fitting(fragment=Fragment.INNER), [free, fixed, six], 1442)
    assert [len(one) for one in cut] == [20 + 1416, 20 + 584]
    assert too_big == [fixed, six]


@pytest.mark.parametrize(
    ("policy", "without_df", "with_df", "ipv6"),
    [
        (OuterDf.SET, False, False, False),
        (OuterDf.COPY, True, False, False),
        (OuterDf.CLEAR, True, True, True),
    ],
)
def test_outer_df_is_set_copied_or_clear(
    policy: OuterDf, without_df: bool, with_df: bool, ipv6: bool
) -> None:
    fitting = Fitting(outer_df=policy)
    assert fitting.may_be_fragmented(octets(V4)) is without_df
    assert fitting.may_be_fragmented(octets(IP(flags="DF"))) is with_df
    assert fitting.may_be_fragmented(octets(V6)) is ipv6
