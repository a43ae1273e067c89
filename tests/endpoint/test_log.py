"""One line for each fact in the life of an SA: never two, never a secret, and with the remedy where one exists."""

import logging
import re
from dataclasses import replace

import pytest

from endpoint.log import REMEDIES, describe
from endpoint.plan import plan_peers
from ike import (
    ChildSaClosed,
    ChildSaEstablished,
    ChildSaFailed,
    CloseReason,
    Event,
    FailureReason,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaRekeyed,
    NotifyAnswered,
    Path,
    PeerAddressChanged,
)
from ike.events import RequestRefused
from ike.numbers import NotifyType
from ike.wire.identity import Identity
from tests.endpoint.pair import STATIC_GRANTS, NodePair, configuration

PLANS = {plan.peer.name: plan for plan in plan_peers(configuration(1))}
PATH = Path(("192.0.2.1", 500), ("192.0.2.2", 4500))


def line(event: Event) -> str:
    return describe(event, PLANS)[1]


def lived() -> NodePair:
    """A pair that has gone through establishment, both rekeys and its end."""
    nodes = NodePair(configuration(1, 'start = "boot"'), configuration(2, 'start = "none"')).start()
    nodes.run()
    nodes.pe1.node.rekey("pe2", None, nodes.now)
    nodes.run()
    nodes.pe1.node.rekey("pe2", None, nodes.now, ike=True)
    nodes.run()
    nodes.pe1.node.terminate("pe2", None, nodes.now)
    nodes.run()
    return nodes


def test_a_whole_life_is_told_in_lines_that_name_the_peer_and_the_spis() -> None:
    nodes = lived()
    told = [line(event) for event in nodes.pe1.events if line(event)]
    (up,) = [one for one in told if "established as initiator" in one]
    (established,) = nodes.pe1.of(IkeSaEstablished)
    for part in (
        "peer pe2: ",
        established.spi_i.hex(),
        established.spi_r.hex(),
        "with pe2.example",
        "aes256gcm16-prfsha384-x25519",
        "native selectors",
    ):
        assert part in up
    children = [one for one in told if ": child " in one and " established, " in one]
    assert len(children) == 3
    assert all(re.search(r"SPIs [0-9a-f]{8} in [0-9a-f]{8} out", one) for one in children)
    assert sum(" rekeyed, SPIs " in one for one in told) == 3
    assert sum(one.startswith("IKE SA ") and " rekeyed: " in one for one in told) == 1
    assert any("IKE SA closed: deleted_locally" in one for one in told)


def test_the_two_ends_tell_the_same_spis_the_other_way_round() -> None:
    nodes = lived()

    def spis(number: int) -> set[tuple[str, ...]]:
        lines = [line(event) for event in nodes.ends[number].of(ChildSaEstablished)]
        found = [re.search(r"SPIs (\w+) in (\w+) out", one) for one in lines]
        return {one.groups() if number == 1 else one.groups()[::-1] for one in found if one}

    assert spis(1) == spis(2) != set()


def test_no_key_nor_secret_nor_nonce_is_in_any_line() -> None:
    nodes = lived()
    text = "\n".join(line(event) for end in (nodes.pe1, nodes.pe2) for event in end.events)
    text += "\n".join(repr(event) for end in (nodes.pe1, nodes.pe2) for event in end.events)
    assert "a secret of the test" not in text
    keys = {
        key
        for end in (nodes.pe1, nodes.pe2)
        for event in end.of(ChildSaEstablished)
        for key in (*event.child.keys_in, *event.child.keys_out)
        if key
    }
    assert len(keys) == 12
    assert not [key for key in keys if key.hex() in text or repr(key) in text]


@pytest.mark.parametrize("selectors", ["plain", "seclabel", "native-or-plain"])
def test_the_line_says_how_vrf_and_class_are_agreed(selectors: str) -> None:
    nodes = NodePair(
        configuration(1, f'selectors = "{selectors}"', grants=STATIC_GRANTS),
        configuration(2, f'selectors = "{selectors}"', grants=STATIC_GRANTS),
    ).start()
    nodes.ping(1, "red", 1)
    nodes.run()
    (event,) = nodes.pe1.of(IkeSaEstablished)
    said = {"native-or-plain": "native"}.get(selectors, selectors)
    assert describe(event, nodes.pe1.node.plans)[1].endswith(f"{said} selectors")


@pytest.mark.parametrize("reason", list(FailureReason))
def test_a_failed_ike_sa_is_an_error_with_its_reason_and_the_remedy_there_is(reason: FailureReason) -> None:
    level, text = describe(IkeSaFailed(1, "pe2", reason, "what came"), PLANS)
    assert level == logging.ERROR
    assert text.startswith(f"peer pe2: no IKE SA: {reason.value.upper()} (what came)")
    assert text.endswith(f"; remedy: {REMEDIES[reason]}" if reason in REMEDIES else "(what came)")


def test_what_an_operator_can_mend_has_a_remedy() -> None:
    assert REMEDIES.keys() >= {
        FailureReason.NO_ANSWER,
        FailureReason.NO_PROPOSAL_CHOSEN,
        FailureReason.AUTHENTICATION_FAILED,
        FailureReason.EXTENSION_ABSENT,
    }
    assert "psk_file" in REMEDIES[FailureReason.AUTHENTICATION_FAILED]


def test_who_failed_before_it_had_a_name_is_unknown() -> None:
    assert line(IkeSaFailed(1, "", FailureReason.PROTOCOL_ERROR, "")) == (
        "peer unknown: no IKE SA: PROTOCOL_ERROR"
    )


@pytest.mark.parametrize(
    ("notify_type", "said", "remedy"),
    [
        (NotifyType.NO_PROPOSAL_CHOSEN, "NO_PROPOSAL_CHOSEN", "compare `esp`"),
        (NotifyType.TS_UNACCEPTABLE, "TS_UNACCEPTABLE", "compare VRF ids, classes"),
        (NotifyType.NO_ADDITIONAL_SAS, "NO_ADDITIONAL_SAS", ""),
        (4711, "4711", ""),
    ],
)
def test_a_child_that_was_refused_is_told_by_the_name_of_the_notify(
    notify_type: int, said: str, remedy: str
) -> None:
    level, text = describe(ChildSaFailed(1, "pe2", "red/gold", notify_type, "from the peer"), PLANS)
    assert level == logging.ERROR
    assert text.startswith("peer pe2: no child red/gold: ")
    assert said in text and "(from the peer)" in text
    assert ("; remedy: " + remedy in text) if remedy else ("remedy" not in text)


def test_a_child_that_failed_here_is_told_without_a_notify() -> None:
    text = line(ChildSaFailed(1, "pe2", "red/gold", None, "the answer names another VRF"))
    assert text.startswith("peer pe2: no child red/gold:") and "the answer names another VRF" in text


@pytest.mark.parametrize(
    ("notify_type", "level", "said"),
    [
        (NotifyType.TEMPORARY_FAILURE, logging.INFO, "put off"),
        (NotifyType.TS_UNACCEPTABLE, logging.WARNING, "refused"),
        (NotifyType.CHILD_SA_NOT_FOUND, logging.WARNING, "refused"),
    ],
)
def test_what_we_refused_the_peer_is_a_warning_unless_it_may_try_again(
    notify_type: int, level: int, said: str
) -> None:
    found, text = describe(RequestRefused(1, "pe2", notify_type, ""), PLANS)
    assert found == level
    assert said in text and NotifyType(notify_type).name in text


@pytest.mark.parametrize("reason", list(CloseReason))
def test_every_end_is_told_with_its_reason(reason: CloseReason) -> None:
    spi_in, spi_out = bytes.fromhex("11223344"), bytes.fromhex("55667788")
    child = line(ChildSaClosed(1, "pe2", spi_in, spi_out, reason))
    assert child == f"peer pe2: child with SPIs 11223344 in 55667788 out closed: {reason.value}"
    assert line(IkeSaClosed(1, "pe2", reason, "")) == f"peer pe2: IKE SA closed: {reason.value}"
    assert line(IkeSaClosed(1, "pe2", reason, "why")).endswith(f"{reason.value} (why)")


def test_a_new_address_and_a_rekey_are_told() -> None:
    assert line(PeerAddressChanged(1, PATH, ())).endswith(str(PATH))
    spis = [bytes([number]) * 8 for number in range(1, 5)]
    text = line(IkeSaRekeyed(1, *spis))
    assert all(spi.hex() in text for spi in spis)


def test_answers_to_notifies_are_no_line() -> None:
    assert describe(NotifyAnswered(1, 1, ()), PLANS)[1] == ""


def test_every_line_is_one_printable_line() -> None:
    nodes = lived()
    for end in (nodes.pe1, nodes.pe2):
        for event in end.events:
            text = line(event)
            assert text.isprintable() and text == text.strip() and "  " not in text, text


@pytest.mark.parametrize("data", [b"pe2\nERROR forged", b"\x1b[2Jpe2", b"\xff\xfe", b"pe2 forged"])
def test_an_identity_cannot_write_a_line_of_its_own(data: bytes) -> None:
    (event,) = lived().pe1.of(IkeSaEstablished)
    forged = replace(event, peer_id=Identity(event.peer_id.id_type, data))
    assert line(forged).isprintable()


def test_a_child_that_failed_here_is_told_without_a_gap() -> None:
    text = describe(ChildSaFailed(1, "pe2", "red/gold", None, "unknown transform"), {})[1]
    assert "  " not in text
    assert describe(ChildSaFailed(1, "pe2", "red/gold", None, ""), {})[1].endswith("no reason is known")
