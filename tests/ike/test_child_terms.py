"""What a responder agrees to for a child (RFC 7296 1.3.1, 2.9)."""

from ipaddress import ip_network

import pytest

from ike.child import ChildTerms, agree
from ike.config import ChildConfig, Mode
from ike.configuration import Ends
from ike.exchanges.refusal import Refused
from ike.numbers import NotifyType
from ike.proposals import number_proposals, parse_esp_proposal
from ike.selectors import AddressSelector, DynamicSelector, SelectorRegistry, TrafficSelectors

ENDS = Ends(("192.0.2.1",), ("192.0.2.2",))
CONFIG = ChildConfig(
    "x",
    (parse_esp_proposal("aes256gcm16"),),
    Mode.TRANSPORT,
    (DynamicSelector(137),),
    (DynamicSelector(137),),
)


def terms(*tsi: AddressSelector, mode: Mode = Mode.TRANSPORT) -> ChildTerms:
    proposals = number_proposals(CONFIG.proposals, b"\0\1\2\3")
    tsr = (AddressSelector.from_address("192.0.2.1", 137),)
    return ChildTerms(proposals, TrafficSelectors(tsi, tsr), mode, accepts_tfc=False)


def test_transport_mode_between_two_hosts_is_agreed() -> None:
    asked = terms(AddressSelector.from_address("192.0.2.2", 137))
    assert agree(asked, [CONFIG], ENDS, SelectorRegistry(), in_auth=False).mode is Mode.TRANSPORT


@pytest.mark.parametrize(
    "tsi",
    [
        (AddressSelector.from_network(ip_network("192.0.2.0/24"), 137),),
        (AddressSelector.from_address("192.0.2.2", 137), AddressSelector.from_address("192.0.2.3", 137)),
    ],
    ids=["a network", "two hosts"],
)
def test_transport_mode_with_more_than_one_address_in_a_payload_is_refused(
    tsi: tuple[AddressSelector, ...],
) -> None:
    with pytest.raises(Refused) as refused:
        agree(terms(*tsi), [CONFIG], ENDS, SelectorRegistry(), in_auth=False)
    assert refused.value.notify.notify_type == NotifyType.TS_UNACCEPTABLE


def test_another_mode_than_configured_is_refused() -> None:
    with pytest.raises(Refused):
        asked = terms(AddressSelector.from_address("192.0.2.2", 137), mode=Mode.TUNNEL)
        agree(asked, [CONFIG], ENDS, SelectorRegistry(), in_auth=False)
