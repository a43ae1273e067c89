"""Our codecs read what other people's programs sent: captures of the lab, opened by the keys beside them.

tshark's dissection of the same frames, kept with them, is the referee.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from esp import DropReason, InboundSa, Opened, transform_for, unprotect
from ike.crypto.keymat import IkeKeys
from ike.proposals import parse_ike_proposal
from ike.protection import Protection
from ike.wire.message import Message
from ike.wire.payloads import EncryptedPayload, NotifyPayload, read_payloads
from ike.wire.reader import Reader
from interop import golden
from interop.wire import esp_packets, ike_messages
from mpls import LabelStack

UDP, ESP, MPLS_IN_IP = 17, 50, 137
AES_GCM_16 = 20
WITH_IKE = [name for name in golden.kept() if not name.startswith(("demo", "linux-esp"))]


@dataclass(frozen=True)
class Datagram:
    """What is of interest in a frame: an IKE message or an ESP packet."""

    is_ike: bool
    octets: bytes


def read_frame(frame: bytes) -> Datagram | None:
    """IKE or ESP directly inside IPv4 or IPv6, or inside UDP; None for anything else and for IP fragments."""
    kind, ip = int.from_bytes(frame[12:14]), frame[14:]
    if kind == 0x0800:
        is_fragment = int.from_bytes(ip[6:8]) & 0x3FFF
        protocol, payload = ip[9], ip[(ip[0] & 15) * 4 : int.from_bytes(ip[2:4])]
    elif kind == 0x86DD:
        is_fragment = False
        protocol, payload = ip[6], ip[40 : 40 + int.from_bytes(ip[4:6])]
    else:
        return None
    if is_fragment:
        return None
    if protocol == ESP:
        return Datagram(False, payload)
    if protocol != UDP:
        return None
    ports, octets = {int.from_bytes(payload[at : at + 2]) for at in (0, 2)}, payload[8:]
    if 500 in ports:
        return Datagram(True, octets)
    if 4500 in ports and len(octets) > 4:
        return Datagram(octets[:4] == bytes(4), octets.removeprefix(bytes(4)))
    return None


class Opener:
    """Opens the IKE messages of a capture by its keys; fragments are put together."""

    def __init__(self, name: str) -> None:
        suite = parse_ike_proposal("aes256gcm16-prfsha384-x25519")
        self._sides = {}
        for keys in golden.read_keys(name).ike:
            material = IkeKeys(b"", b"", b"", keys.sk_ei, keys.sk_er, b"", b"")
            for by_initiator in (True, False):
                # What the initiator sends is opened by the responder.
                self._sides[keys.spi_i, by_initiator] = Protection(suite, material, not by_initiator)
        self._fragments: dict[tuple[bytes, int, bool], dict[int, tuple[int, bytes]]] = {}

    def payload_types(self, raw: bytes) -> tuple[list[int], list[int]] | None:
        """Types of all payloads and of all notifies of a message; None while fragments are missing."""
        message = Message.parse(raw)
        payloads, sealed = list(message.payloads), message.encrypted
        if sealed is not None:
            side = self._sides[message.spi_i, message.is_initiator]
            opened = self._join(message, sealed, side, raw) if sealed.is_fragment else side.open(raw)
            if opened is None:
                return None
            first, inner = opened
            payloads += read_payloads(first, Reader(inner), allow_sealed=False)
        notifies = [payload.notify_type for payload in payloads if isinstance(payload, NotifyPayload)]
        return [payload.payload_type for payload in payloads], notifies

    def _join(
        self, message: Message, sealed: EncryptedPayload, side: Protection, raw: bytes
    ) -> tuple[int, bytes] | None:
        key = (message.spi_i, message.message_id, message.is_response)
        parts = self._fragments.setdefault(key, {})
        parts[sealed.fragment_number] = side.open_fragment(raw)
        if len(parts) < sealed.total_fragments:
            return None
        ordered = [parts[number] for number in sorted(parts)]
        return ordered[0][0], b"".join(octets for _, octets in ordered)


def read_all(name: str) -> dict[int, Datagram]:
    frames = ((number, read_frame(frame)) for number, frame in enumerate(golden.read_frames(name), 1))
    return {number: datagram for number, datagram in frames if datagram is not None}


@pytest.mark.parametrize("name", WITH_IKE)
def test_our_codecs_see_in_ike_what_tshark_sees(name: str) -> None:
    datagrams, opener = read_all(name), Opener(name)
    theirs = {one.packet.number: one for one in ike_messages(golden.read(name).packets)}
    assert theirs
    for number, datagram in datagrams.items():
        if datagram.is_ike:
            ours = opener.payload_types(datagram.octets)
            if ours is None:
                assert number not in theirs
                continue
            seen = theirs.pop(number)
            types, notifies = ours
            if "_ws.malformed" in seen.packet.stack:  # tshark stopped at what it does not know
                assert types[: len(seen.payloads)] == [payload.type for payload in seen.payloads]
                continue
            assert types == [payload.type for payload in seen.payloads]
            assert set(notifies) == seen.notifies
    assert not theirs


@pytest.mark.parametrize("name", WITH_IKE)
def test_our_codecs_see_in_esp_what_tshark_sees(name: str) -> None:
    datagrams = read_all(name)
    transform = transform_for(AES_GCM_16, 256)
    spis = {key.spi: key.key for key in golden.read_keys(name).esp}
    esn = bool(golden.read(name).facts.get("esn_sas"))
    sas = {spi: InboundSa(spi.to_bytes(4), transform, key, esn=esn) for spi, key in spis.items()}
    opened_before: set[bytes] = set()
    for seen in esp_packets(golden.read(name).packets):
        if seen.packet.number not in datagrams:
            continue
        octets = datagrams[seen.packet.number].octets
        if octets in opened_before:  # the link doubled it
            assert unprotect(sas[seen.spi], octets) == DropReason.REPLAY
            continue
        opened_before.add(octets)
        opened = unprotect(sas[seen.spi], octets)
        assert isinstance(opened, Opened)
        assert opened.next_header == seen.next_header
        if seen.next_header == MPLS_IN_IP:
            stack = LabelStack.parse(opened.payload)
            assert isinstance(stack, LabelStack)
            assert [(entry.label, int(entry.bottom)) for entry in stack.entries] == seen.labels
