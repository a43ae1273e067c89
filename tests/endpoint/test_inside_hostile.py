"""Whatever a router inside sends, whatever comes out of transport mode: a counted drop, never an exception."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mpls.drops import DropReason
from mpls.ip import IpHeader, build_ip
from mpls.labels import LabelStack
from mpls.plain import check_plain, open_transport
from tests.endpoint.config_texts import LABELLED, parse
from tests.endpoint.star import Star
from tests.mpls.test_plain import HOSTS4, HOSTS6, policy

ATTACHMENTS = ("eth1", "red-pe", "blue-pe", "inner")
VALID = LabelStack.push(301, 500).encode() + build_ip(
    bytes((10, 1, 0, 9)), bytes((10, 2, 0, 9)), 17, bytes(8)
)
octets_of_a_router = st.one_of(
    st.binary(max_size=80),
    st.integers(0, len(VALID)).map(lambda length: VALID[:length]),
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6).map(
        lambda changes: bytes(dict(changes).get(at, octet) for at, octet in enumerate(VALID))
    ),
    st.integers(17, 1000).map(lambda depth: b"\0\x3e\x80\xff" * depth + VALID),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ATTACHMENTS), octets_of_a_router), max_size=20))
def test_every_packet_of_a_router_is_dropped_counted_or_waits(sent: list[tuple[str, bytes]]) -> None:
    star = Star(parse(LABELLED))
    (member,) = star.members.values()
    for attachment, octets in sent:
        star.send("192.0.2.1", attachment, octets)
    star.run(15)  # longer than a packet waits
    assert sum(member.node.dataplane.drops.values()) == len(sent)
    assert {name for name, _ in member.delivered} <= {name for name, _ in sent}, "only errors, to who sent"


@given(st.integers(0, 255), st.binary(max_size=100), st.booleans(), st.booleans())
def test_whatever_transport_mode_carried_is_a_packet_of_these_two_hosts_or_refused(
    next_header: int, payload: bytes, is_ipv6: bool, has_nat: bool
) -> None:
    hosts = HOSTS6 if is_ipv6 else HOSTS4
    egress = policy(hosts[0], hosts[1], (hosts[1], hosts[0]) if has_nat else None)
    opened = open_transport(egress, next_header, payload, *hosts)
    if isinstance(opened, bytes):
        header = IpHeader.parse(opened)
        assert isinstance(header, IpHeader)
        assert egress.admits_addresses(header)
    else:
        assert isinstance(opened, DropReason)


@given(st.binary(max_size=100))
def test_check_of_an_outbound_packet_never_raises(octets: bytes) -> None:
    result = check_plain(policy(*HOSTS4), octets)
    assert result is None or isinstance(result, DropReason)
