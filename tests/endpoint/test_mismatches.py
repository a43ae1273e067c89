"""Packets that are not what their SA is for, and what is said of them (RFC 4301 5.2, RFC 7296 3.10.1)."""

import logging

import pytest
from scapy.contrib.ikev2 import IKEv2_Notify

from endpoint.children import Child
from endpoint.dataplane import EspArrival
from endpoint.mismatches import INTERVAL_S, START_OCTETS
from esp.engine import protect
from ike.numbers import NotifyType
from ike.wire.payloads import NotifyPayload
from mpls.drops import DropReason
from tests.endpoint.pair import NodePair
from tests.endpoint.test_dataplane import child_of, echo, forged, receive, up
from tests.endpoint.test_plain_ip import udp

LONELY = bytes.fromhex("0000213f")
"""Label 2, TC 0, S, TTL 63: no label that we have given out, and special."""
TOLD = "invalid_selectors = true"


def counts(nodes: NodePair) -> tuple[int, int]:
    """(sent by pe2, received by pe1)"""
    return nodes.pe2.node.mismatches.sent, nodes.pe1.node.mismatches.received


def test_a_peer_is_told_of_the_packet_and_nothing_changes_at_either_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = up(TOLD)
    notifies: list[NotifyPayload] = []
    on_notify = nodes.pe1.node.mismatches.on_notify

    def watch(session: int, child: Child | None, notify: NotifyPayload, now: float) -> None:
        notifies.append(notify)
        on_notify(session, child, notify, now)

    monkeypatch.setattr(nodes.pe1.node.mismatches, "on_notify", watch)
    before = nodes.pe1.children(), nodes.pe2.children()
    fine, foreign = forged(nodes, "red/gold", "red", "gold"), forged(nodes, "red/gold", "blue", 0)
    receive(nodes, fine, foreign, forged(nodes, "red/gold", "red", "gold"))
    nodes.run()
    (notify,) = notifies
    child = child_of(nodes, 2, "red/gold")
    assert notify.notify_type == NotifyType.INVALID_SELECTORS
    assert (notify.protocol, notify.spi) == (3, child.sa.spi_in)
    assert notify.data[4:] == echo()[: START_OCTETS - 4], "the label stack, and the packet under it"
    assert counts(nodes) == (1, 1)
    assert (nodes.pe1.children(), nodes.pe2.children()) == before
    assert nodes.pe2.drops("label_foreign") == 1 and nodes.pe2.node.dataplane.delivered == 2
    assert f"peer pe2, child red/gold dropped what we sent on SPI {child.sa.spi_in.hex()}" in caplog.text
    nodes.ping(1, "red", 9)
    nodes.run()
    assert nodes.pongs(1, "red")[-1] == 9


def test_scapy_reads_the_notify() -> None:
    nodes = up(TOLD)
    child = child_of(nodes, 2, "red/gold")
    notify = nodes.pe2.node.mismatches.notify_for(child, bytes(range(200)), nodes.now)
    assert notify is not None
    body = notify.encode_body()
    seen = IKEv2_Notify(b"\0\0" + (4 + len(body)).to_bytes(2, "big") + body)
    assert seen.sprintf("%IKEv2_Notify.type%") == "INVALID_SELECTORS"
    assert seen.sprintf("%IKEv2_Notify.proto%") == "ESP"
    assert bytes(seen.SPI) == child.sa.spi_in and bytes(seen.notify) == bytes(range(START_OCTETS))


def test_of_a_run_of_packets_the_one_that_does_not_fit_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = up(TOLD)
    told: list[bytes] = []
    # Packets of one flow are judged together; pings are not.
    monkeypatch.setattr("tests.endpoint.test_dataplane.echo", lambda: udp("10.1.0.2", "10.2.0.2"))
    fine = [forged(nodes, "red/gold", "red", "gold") for _ in range(3)]
    packets = [*fine, protect(child_of(nodes, 1, "red/gold").outbound, LONELY, 137)]
    notify_for = nodes.pe2.node.mismatches.notify_for

    def watch(child: Child, packet: bytes, now: float) -> NotifyPayload | None:
        told.append(packet)
        return notify_for(child, packet, now)

    monkeypatch.setattr(nodes.pe2.node.mismatches, "notify_for", watch)
    nodes.pe2.node.receive_esp([EspArrival(packets, ("192.0.2.1", 0), "192.0.2.2")], nodes.now)
    assert nodes.pe2.node.dataplane.delivered == 3
    assert told == [LONELY]


def test_nobody_is_told_unless_it_is_configured() -> None:
    nodes = up()
    receive(nodes, forged(nodes, "red/gold", "blue", 0))
    nodes.run()
    assert counts(nodes) == (0, 0) and nodes.pe2.drops("label_foreign") == 1


def test_however_many_there_are_one_is_told_in_ten_seconds() -> None:
    nodes = up(TOLD)
    for _ in range(3):
        receive(nodes, *(forged(nodes, "red/gold", "blue", 0) for _ in range(50)))
        nodes.run()
    assert counts(nodes) == (1, 1)
    nodes.run(INTERVAL_S)
    receive(nodes, *(forged(nodes, "red/gold", "blue", 0) for _ in range(50)))
    nodes.run()
    assert counts(nodes) == (2, 2) and nodes.pe2.drops("label_foreign") == 200


def test_while_one_is_unanswered_no_other_is_kept() -> None:
    nodes = up(TOLD + '\nliveness = "10m"')
    silent = {1}
    nodes.lose = lambda sender, octets: sender in silent
    for _ in range(4):
        receive(nodes, forged(nodes, "red/gold", "blue", 0))
        nodes.run(INTERVAL_S)
    assert nodes.pe2.node.mismatches.sent == 1
    silent.clear()
    nodes.run(60)
    receive(nodes, forged(nodes, "red/gold", "blue", 0))
    nodes.run()
    assert nodes.pe2.node.mismatches.sent == 2


def test_of_a_child_that_is_closed_nobody_is_told() -> None:
    nodes = up(TOLD)
    late = protect(child_of(nodes, 1, "red/gold").outbound, b"a TCP segment", 6)
    nodes.pe1.node.terminate("pe2", None, nodes.now)
    nodes.run(0.1)
    receive(nodes, late)
    assert nodes.pe2.drops(DropReason.NEXT_HEADER) == 1
    assert counts(nodes) == (0, 0)


def test_another_protocol_than_the_childs_is_a_mismatch_and_a_bad_stack_is_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "mplsec.dataplane")
    nodes = up(TOLD)
    outbound = child_of(nodes, 1, "red/gold").outbound
    receive(nodes, protect(outbound, b"\0", 137))
    assert nodes.pe2.drops(DropReason.STACK_TRUNCATED) == 1 and nodes.pe2.node.mismatches.sent == 0
    assert not caplog.records
    receive(nodes, protect(outbound, b"a TCP segment", 6))
    assert nodes.pe2.drops(DropReason.NEXT_HEADER) == 1 and nodes.pe2.node.mismatches.sent == 1
    assert "next_header on SPI" in caplog.text


@pytest.mark.parametrize("spi", [b"", b"\xde\xad\xbe\xef"])
def test_a_notify_of_nothing_we_know_is_counted_and_no_more(
    spi: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = up()
    (session,) = (one.session for one in nodes.pe2.node.engine.sessions())
    for _ in range(3):
        notify = NotifyPayload(NotifyType.INVALID_SELECTORS, b"\n" * 50_000, 3 if spi else 0, spi)
        nodes.pe2.node.engine.send_notify(session, (notify,), nodes.now)
        nodes.run()
    assert nodes.pe1.node.mismatches.received == 3
    (record,) = [one for one in caplog.records if one.name == "mplsec.mismatches"]
    assert len(record.getMessage()) < 400 and record.getMessage().isprintable()
    assert nodes.pe1.children() == nodes.pe2.children() != {}
