"""IKE_SA_INIT as responder: no state before the cookie, little after it (RFC 7296 1.2, 2.1, 2.6; RFC 6023).

    HDR, [N(COOKIE)], SAi1, KEi, Ni, N(NAT_DETECTION_*), [N+], [V]  -->
      <--  HDR, SAr1, KEr, Nr, N(NAT_DETECTION_*), [CERTREQ], [N+], [V]

Must not know who the peer is: that is IKE_AUTH's.
"""

from __future__ import annotations

import hashlib
import ipaddress

from ike.child import ke_groups
from ike.config import Path
from ike.cookies import CookieJar
from ike.crypto.keymat import derive_ike_keys
from ike.directory import Admission
from ike.errors import LocalError, ParseError, SchemaError
from ike.events import Direction, DropReason
from ike.exchanges.credentials import announced_hashes
from ike.exchanges.key_exchange import answer_key_exchange
from ike.exchanges.nat_detection import has_nat_detection, nat_detection, nat_state
from ike.exchanges.refusal import Refused
from ike.exchanges.sa_init import MESSAGE_ID, fragmentation_announcement
from ike.exchanges.schema import UnsupportedCriticalPayload, story_of
from ike.host import Host
from ike.material import InitMaterial
from ike.nat import NatState
from ike.numbers import ExchangeType, NotifyType, ProtocolId
from ike.proposals import select_proposal
from ike.sa import IkeSa
from ike.session import Session
from ike.states import IkeSaState
from ike.timers import TimerKind
from ike.wire.message import NO_SPI, Message
from ike.wire.payloads import KePayload, NoncePayload, NotifyPayload, Payload, SaPayload, VendorIdPayload


class InitResponder:
    """Answers IKE_SA_INIT requests for one engine."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._cookies = CookieJar(host.entropy, host.settings.cookie_lifetime_s)

    def receive(self, data: bytes, path: Path, now: float) -> None:
        """A datagram that says to be an IKE_SA_INIT request. Anybody may have sent it."""
        host = self._host
        digest = hashlib.sha256(data).digest()
        known = host.half_open.get(digest)
        if known:
            # The same packet again: the same response again, or none once IKE_AUTH went wrong (RFC 7296 2.1).
            host.drop(DropReason.RETRANSMITTED_REQUEST)
            if known.state is IkeSaState.CONNECTING:
                known.sender.repeat_response(MESSAGE_ID, path)
            return
        if digest in host.completed_inits:
            host.drop(DropReason.OLD_RETRANSMISSION)
            return
        try:
            message = Message.parse(data)
            host.trace_message(now, None, Direction.RECEIVED, path, message)
            story_of(message)
            if message.message_id != MESSAGE_ID:
                raise SchemaError("IKE_SA_INIT has Message ID 0")
        except ParseError:
            host.drop(DropReason.MALFORMED)
        except UnsupportedCriticalPayload as error:
            host.drop(DropReason.SCHEMA)
            notify = NotifyPayload(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, bytes([error.payload_type]))
            self._refuse(message, notify, path, now)
        except SchemaError:
            host.drop(DropReason.SCHEMA)
        else:
            try:
                self._respond(message, digest, path, now)
            except Refused as refused:
                self._refuse(message, refused.notify, path, now)
            except LocalError:
                # Nothing is registered before the response is sealed.
                host.drop(DropReason.UNSENDABLE_ANSWER)
                self._refuse(message, NotifyPayload(NotifyType.NO_PROPOSAL_CHOSEN), path, now)

    def _refuse(self, request: Message, notify: NotifyPayload, path: Path, now: float) -> None:
        """One notify, no state, the responder's SPI left zero."""
        response = Message(
            request.spi_i, NO_SPI, ExchangeType.IKE_SA_INIT, False, True, MESSAGE_ID, (notify,)
        )
        self._host.trace_message(now, None, Direction.SENT, path, response)
        self._host.send((response.encode(),), path)

    def _respond(self, message: Message, digest: bytes, path: Path, now: float) -> None:
        host = self._host
        nonce_i, offer = message.get(NoncePayload), message.get(SaPayload)
        if nonce_i is None or offer is None:
            raise Refused(NotifyType.INVALID_SYNTAX, "no SA and Ni")
        admission = host.directory.at(path.local[0], path.peer[0])
        if not admission.connections:
            host.drop(DropReason.NO_CONNECTION)
            raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "no connection for these addresses")
        source = self._proven_source(message, nonce_i, path, now)
        if not self._has_room(source):
            return
        chosen = select_proposal(offer.proposals, admission.proposals)
        if chosen is None or offer.proposals[0].protocol != ProtocolId.IKE:
            raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "no proposal fits")
        ke_r, shared = answer_key_exchange(host, ke_groups((chosen,))[0], message.get(KePayload))
        spi_r, nonce_r = host.new_ike_spi(), NoncePayload(host.nonce())
        vendor_ids = admission.vendor_ids & {vendor.data for vendor in message.all(VendorIdPayload)}
        payloads: list[Payload] = [SaPayload((chosen,)), ke_r, nonce_r]
        nat = NatState()
        if has_nat_detection(message) and not admission.forbids_udp:
            payloads.extend(nat_detection(host, message.spi_i, spi_r, path, is_forced=admission.forces_udp))
            nat = nat_state(message, path, admission.forces_udp)
        payloads.extend(admission.certificate_requests)
        peer_hashes = announced_hashes(message)
        announcement = admission.hash_announcement if peer_hashes else ()
        payloads.extend(announcement)
        fragment_octets = _fragment_octets(message, admission)
        payloads.extend(fragmentation_announcement(fragment_octets))
        # RFC 6023 3; and without it a Vendor ID of ours would not count.
        payloads.append(NotifyPayload(NotifyType.CHILDLESS_IKEV2_SUPPORTED, protocol=ProtocolId.IKE))
        payloads.extend(VendorIdPayload(vendor_id) for vendor_id in sorted(vendor_ids))

        session = Session(host, None, is_opener=False)
        sa = IkeSa(host, session, spi_i=message.spi_i, spi_r=spi_r, is_initiator=False, path=path)
        session.current = sa
        sa.nat, sa.vendor_ids, sa.init_digest, sa.init_source = nat, vendor_ids, digest, source
        sa.peer_hashes = peer_hashes if announcement else frozenset()
        sa.fragment_octets = fragment_octets
        keys = derive_ike_keys(chosen, nonce_i.data, nonce_r.data, shared, message.spi_i, spi_r)
        sa.use_keys(chosen, keys)
        response = sa.sender.send_response(message, payloads, path, now)
        sa.init = InitMaterial(message.raw, response, nonce_i.data, nonce_r.data)
        host.register_ike_sa(sa)
        host.half_open[digest] = sa
        host.timers.set(now + host.settings.half_open_s, TimerKind.HALF_OPEN, sa)

    def _proven_source(self, message: Message, nonce_i: NoncePayload, path: Path, now: float) -> str:
        """With many half-open IKE SAs: a cookie first, or Refused (RFC 7296 2.6). With few: empty."""
        host = self._host
        if len(host.half_open) < host.settings.cookie_threshold:
            return ""
        cookie = message.notify(NotifyType.COOKIE)
        about = (message.spi_i, nonce_i.data, path.peer, now)
        if cookie is None or not self._cookies.is_good(cookie.data, *about):
            host.drop(DropReason.COOKIE_REQUIRED)
            raise Refused(NotifyType.COOKIE, "half-open IKE SAs", data=self._cookies.bake(*about))
        return _source(path.peer[0])

    def _has_room(self, source: str) -> bool:
        """Only what a cookie has proven counts against `source`: forged requests shut nobody out."""
        host, settings = self._host, self._host.settings
        of_source = sum(sa.init_source == source for sa in host.half_open.values()) if source else 0
        if len(host.half_open) >= settings.max_half_open or of_source >= settings.max_half_open_per_address:
            host.drop(DropReason.HALF_OPEN_LIMIT)
        elif len(host.sessions) >= settings.max_sessions:
            host.drop(DropReason.SESSION_LIMIT)
        else:
            return True
        return False


def _source(address: str) -> str:
    """What one sender can have many of counts as one: the /64 of an IPv6 address; all of an IPv4 address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
        return ip.packed[:8].hex()
    return address


def _fragment_octets(message: Message, admission: Admission) -> int | None:
    """The smallest size of those who may be meant; None unless both ends want fragmentation (RFC 7383 2.3)."""
    if message.notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) is None:
        return None
    return admission.fragment_octets
