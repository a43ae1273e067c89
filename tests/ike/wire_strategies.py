"""Hypothesis strategies for every kind of payload, and one fixed sample of each."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from ike.numbers import PayloadType
from ike.selectors import ANY_PORTS, OPAQUE_PORTS, AddressSelector, RawSelector, SecurityLabel, Selector
from ike.wire.identity import Identity
from ike.wire.message import Message
from ike.wire.payloads import (
    BODY_PARSERS,
    AuthPayload,
    CertPayload,
    CertreqPayload,
    ConfigAttribute,
    ConfigPayload,
    DeletePayload,
    EapPayload,
    EncryptedPayload,
    IdiPayload,
    IdrPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    Payload,
    SaPayload,
    TsiPayload,
    TsrPayload,
    UnknownPayload,
    VendorIdPayload,
)
from ike.wire.sa import Attribute, Proposal, Transform

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
spi8 = st.binary(min_size=8, max_size=8)


def octets(max_size: int = 64) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=max_size)


attributes = st.builds(Attribute, st.integers(0, 0x7FFF), u16 | octets(8))
transforms = st.builds(Transform, u8, u16, st.none() | u16) | st.builds(
    Transform,
    u8,
    u16,
    st.none(),
    st.lists(attributes, min_size=1, max_size=4)
    .map(tuple)
    .filter(lambda a: len(a) > 1 or a[0].type != 14 or not isinstance(a[0].value, int)),
)


@st.composite
def proposals(draw: st.DrawFn) -> tuple[Proposal, ...]:
    first = draw(st.integers(0, 200))
    result = []
    for number in range(first, first + draw(st.integers(1, 4))):
        protocol = draw(st.sampled_from((1, 2, 3, 6)))
        spi_octets = draw(st.sampled_from({1: (0, 8), 2: (4,), 3: (4,), 6: (0, 4, 8)}[protocol]))
        spi = draw(st.binary(min_size=spi_octets, max_size=spi_octets))
        result.append(
            Proposal(protocol, tuple(draw(st.lists(transforms, min_size=1, max_size=5))), spi, number)
        )
    return tuple(result)


ports = st.just(ANY_PORTS) | st.just(OPAQUE_PORTS) | st.tuples(u16, u16).map(lambda p: (min(p), max(p)))


@st.composite
def address_selectors(draw: st.DrawFn, small: bool = False) -> AddressSelector:
    """`small`: from few addresses, protocols and ports, so that two of them often overlap."""
    is_ipv4 = draw(st.booleans())
    family, highest = (IPv4Address, 2**32 - 1) if is_ipv4 else (IPv6Address, 2**128 - 1)
    number = st.integers(0, 6 if small else highest)
    first, last = sorted((draw(number), draw(number)))
    if small:
        port = st.integers(0, 4)
        some = st.tuples(port, port).map(lambda p: (min(p), max(p)))
        start_port, end_port = draw(st.sampled_from((ANY_PORTS, OPAQUE_PORTS)) | some)
        protocol = draw(st.sampled_from((0, 17, 137)))
    else:
        start_port, end_port = draw(ports)
        protocol = draw(u8)
    return AddressSelector(family(first), family(last), protocol, start_port, end_port)


@st.composite
def raw_selectors(draw: st.DrawFn) -> RawSelector:
    ts_type = draw(u8.filter(lambda t: t not in (7, 8)))
    content = draw(octets(40))
    return RawSelector(ts_type, bytes((ts_type, draw(u8))) + (4 + len(content)).to_bytes(2, "big") + content)


selectors: st.SearchStrategy[Selector] = address_selectors() | raw_selectors()
selector_tuples = st.lists(selectors, max_size=6).map(tuple)
identities = st.builds(Identity, u8, octets())
three_octets = st.binary(min_size=3, max_size=3)


@st.composite
def notifies(draw: st.DrawFn) -> NotifyPayload:
    spi_octets = draw(st.sampled_from((0, 4, 8)))
    spi = draw(st.binary(min_size=spi_octets, max_size=spi_octets))
    return NotifyPayload(draw(u16), draw(octets()), draw(u8), spi)


known_payloads: st.SearchStrategy[Payload] = st.one_of(
    st.builds(SaPayload, proposals()),
    st.builds(KePayload, u16, octets()),
    st.builds(IdiPayload, identities, three_octets),
    st.builds(IdrPayload, identities, three_octets),
    st.builds(CertPayload, u8, octets()),
    st.builds(CertreqPayload, u8, octets()),
    st.builds(AuthPayload, u8, octets()),
    st.builds(NoncePayload, st.binary(min_size=16, max_size=256)),
    notifies(),
    st.builds(DeletePayload, st.sampled_from((2, 3)), st.lists(st.binary(min_size=4, max_size=4)).map(tuple)),
    st.just(DeletePayload(1)),
    st.builds(VendorIdPayload, octets()),
    st.builds(TsiPayload, selector_tuples),
    st.builds(TsrPayload, selector_tuples),
    st.builds(
        ConfigPayload,
        u8,
        st.lists(st.builds(ConfigAttribute, st.integers(0, 0x7FFF), octets(20)), max_size=6).map(tuple),
    ),
    octets().map(lambda data: EapPayload(b"\x01\x07" + (len(data) + 4).to_bytes(2, "big") + data)),
)
unknown_types = st.integers(1, 255).filter(lambda t: t not in BODY_PARSERS and t not in (46, 53))
unknown_payloads = st.builds(UnknownPayload, unknown_types, octets(), critical=st.booleans())
clear_payloads: st.SearchStrategy[Payload] = known_payloads | unknown_payloads
sealed_payloads = st.builds(EncryptedPayload, u8, octets()) | st.builds(
    EncryptedPayload, u8, octets(), st.integers(1, 9), st.integers(9, 0xFFFF)
)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    payloads = draw(st.lists(clear_payloads, max_size=5))
    if draw(st.booleans()):
        payloads.append(draw(sealed_payloads))
    return Message(
        draw(spi8), draw(spi8), draw(u8), draw(st.booleans()), draw(st.booleans()), draw(u32), tuple(payloads)
    )


_PROPOSALS = (
    Proposal(
        1, (Transform(1, 20, 256), Transform(2, 6), Transform(4, 31), Transform(4, 19)), bytes(range(8)), 1
    ),
    Proposal(
        3,
        (Transform(1, 20, 128), Transform(5, 0), Transform(9, 9, None, (Attribute(99, b"abc"),))),
        b"\1\2\3\4",
        2,
    ),
)
_SELECTORS = (
    AddressSelector.from_address("192.0.2.2", 137),
    AddressSelector(IPv6Address("2001:db8::"), IPv6Address("2001:db8::ffff"), 58, 128 << 8, 128 << 8 | 255),
    RawSelector(10, SecurityLabel(b"mpls:vrf=red;class=gold").encode()),
    RawSelector(246, bytes.fromhex("f6000015a30001018200480000fde800000064020a")),
)

SAMPLE_PAYLOADS: tuple[Payload, ...] = (
    SaPayload(_PROPOSALS),
    KePayload(31, bytes(range(32))),
    IdiPayload(Identity.fqdn("pe1.example")),
    IdrPayload(Identity.parse_text("192.0.2.2")),
    CertPayload(4, b"0\x82certificate"),
    CertreqPayload(4, bytes(40)),
    AuthPayload(2, bytes(range(48))),
    NoncePayload(bytes(range(32))),
    NotifyPayload(16393, b"", 3, b"\xca\xfe\xba\xbe"),
    NotifyPayload(16388, bytes(range(20))),
    DeletePayload(3, (b"\1\2\3\4", b"\5\6\7\x08")),
    VendorIdPayload(bytes.fromhex("e7f5947c719b26d8336964af13f4942e01")),
    TsiPayload(_SELECTORS),
    TsrPayload(_SELECTORS[:1]),
    ConfigPayload(1, (ConfigAttribute(1), ConfigAttribute(15, bytes(17)))),
    EapPayload(b"\x02\x01\x00\x09\x01user"),
    UnknownPayload(200, b"something new"),
)
SAMPLE_MESSAGES: tuple[Message, ...] = (
    Message(b"initiate", bytes(8), 34, True, False, 0, SAMPLE_PAYLOADS),
    Message(b"initiate", b"responds", 35, True, False, 1, (EncryptedPayload(PayloadType.IDI, bytes(60)),)),
    Message(b"initiate", b"responds", 35, True, False, 1, (EncryptedPayload(0, bytes(60), 2, 3),)),
)
