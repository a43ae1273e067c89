"""Which of IKE, ESP and keepalive a datagram on port 4500 is (RFC 3948)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.demux import KEEPALIVE, NON_ESP_MARKER, Kind, are_esp, classify, strip_marker


@pytest.mark.parametrize(
    ("datagram", "kind"),
    [
        (b"\xff", Kind.KEEPALIVE),
        (b"", Kind.SHORT),
        (b"\x00", Kind.SHORT),
        (b"\xff\xff", Kind.SHORT),
        (b"\x00\x00\x00", Kind.SHORT),
        (b"\x00\x00\x00\x00", Kind.IKE),
        (b"\x00\x00\x00\x00" + b"i" * 28, Kind.IKE),
        (b"\x00\x00\x00\x01", Kind.ESP),
        (b"\xff\xff\xff\xff", Kind.ESP),
        (b"\x12\x34\x56\x78" + bytes(40), Kind.ESP),
    ],
)
def test_datagram_is_classified_by_its_first_four_octets(datagram: bytes, kind: Kind) -> None:
    assert classify(datagram) is kind


@given(
    st.lists(
        st.binary(max_size=6) | st.sampled_from([bytes(4), bytes(5), b"\0\0\0\1"]), min_size=1, max_size=4
    )
)
def test_all_are_esp_when_each_is(datagrams: list[bytes]) -> None:
    assert are_esp(datagrams) == all(classify(one) is Kind.ESP for one in datagrams)


def test_marker_comes_off_an_ike_message() -> None:
    assert strip_marker(NON_ESP_MARKER + b"message") == b"message"
    assert classify(KEEPALIVE) is Kind.KEEPALIVE
