"""An IKE peer that does what a script says, right or wrong (RFC 7296): for trying out other people's gateways.

It builds every message by itself, keeps no timers and obeys no state machine: what is sent, in which order and
with which octets, is the script's to decide. Must not know sockets; a `Wire` carries its datagrams.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from ike.child import SPI_OCTETS as CHILD_SPI_OCTETS
from ike.child import ChildTerms, ke_groups, propose
from ike.config import ChildConfig, Connection, Path, PskAuth
from ike.configuration import Ends
from ike.crypto.auth import psk_auth, signed_octets
from ike.crypto.kex import KeyExchange
from ike.crypto.keymat import derive_ike_keys
from ike.crypto.prf import Prf
from ike.entropy import Entropy
from ike.errors import IkeError, LocalError, ParseError
from ike.events import Direction
from ike.exchanges.auth import first_child
from ike.material import InitMaterial, Keyed
from ike.numbers import AuthMethod, ExchangeType, NotifyType, ProtocolId, TransformType
from ike.proposals import is_valid_selection, number_proposals, select_proposal
from ike.protection import IntegrityError, Protection
from ike.selectors import TrafficSelectors
from ike.trace import describe, summary
from ike.wire.message import NO_SPI, SPI_OCTETS, Message, SealedBody, parse_payloads
from ike.wire.payloads import (
    AuthPayload,
    DeletePayload,
    IdiPayload,
    IdrPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    Payload,
    SaPayload,
    VendorIdPayload,
)
from ike.wire.sa import Proposal

__all__ = ["ScriptError", "ScriptedChild", "ScriptedPeer", "Step", "Wire", "in_short"]

MAX_INIT_ROUNDS = 6
MAX_WAITING = 64
NONCE_OCTETS = 32


class ScriptError(IkeError):
    """The gateway did not do what the script needs to go on."""


class Wire(Protocol):
    """What carries datagrams to one gateway and back."""

    @property
    def path(self) -> Path: ...

    async def send(self, data: bytes) -> None: ...

    async def receive(self, seconds: float) -> bytes | None:
        """The next datagram from the gateway; None if none comes within `seconds`."""

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""

    async def pause(self, seconds: float) -> None:
        """Let so much time pass; what comes meanwhile stays to be received."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the story: a message sent or received, or a remark (`direction` None)."""

    direction: Direction | None
    text: str

    def __str__(self) -> str:
        mark = {Direction.SENT: "-->", Direction.RECEIVED: "<--", None: "   "}[self.direction]
        return f"{mark} {self.text}"


@dataclass(frozen=True, slots=True)
class ScriptedChild:
    """A Child SA that was agreed: both SPIs (4 octets), its selectors (`tsi` its creator's), its nonces.

    A script has no use for its keys.
    """

    config: ChildConfig
    spi_in: bytes
    spi_out: bytes
    ts: TrafficSelectors
    nonces: tuple[bytes, bytes]


@dataclass(slots=True)
class _Attempt:
    """One IKE SA in the making, and made."""

    is_initiator: bool
    spi_i: bytes
    spi_r: bytes = NO_SPI
    key_exchange: KeyExchange | None = None
    group: int = 0
    public: bytes = b""
    nonce: bytes = b""
    init: InitMaterial | None = None
    keyed: Keyed | None = None
    peer_vendor_ids: frozenset[bytes] = frozenset()
    next_id: int = 0
    is_up: bool = False
    """The gateway has authenticated."""
    waiting: deque[Message] = field(default_factory=lambda: deque(maxlen=MAX_WAITING))


class ScriptedPeer:
    """One end of a conversation with the gateway of `connection`, which authenticates by pre-shared key.

    `wait_s`: how long an answer is waited for, `tries` how often a request is sent before it counts as not
    answered. `transcript` collects what happened; `on_step` is told each step when it happens.
    LocalError for a connection with other authentication.
    """

    def __init__(
        self,
        connection: Connection,
        wire: Wire,
        *,
        entropy: Entropy,
        wait_s: float = 1.0,
        tries: int = 3,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> None:
        if not isinstance(connection.auth, PskAuth):
            raise LocalError("a scripted peer authenticates by pre-shared key")
        self.connection = connection
        self.wire = wire
        self.entropy = entropy
        self.wait_s, self.tries = wait_s, tries
        self.transcript: list[Step] = []
        self.child: ScriptedChild | None = None
        self._psk = connection.auth.psk
        self._on_step = on_step
        self._attempt = _Attempt(True, self.entropy.octets(SPI_OCTETS))

    # --- what happened

    def note(self, text: str) -> None:
        """A remark in the transcript."""
        self._step(None, text)

    def _step(self, direction: Direction | None, text: str) -> None:
        step = Step(direction, text)
        self.transcript.append(step)
        self._on_step(step)

    # --- the IKE SA

    @property
    def spi_i(self) -> bytes:
        return self._attempt.spi_i

    @property
    def spi_r(self) -> bytes:
        return self._attempt.spi_r

    @property
    def is_initiator(self) -> bool:
        return self._attempt.is_initiator

    @property
    def keyed(self) -> Keyed:
        """Algorithms and secrets after IKE_SA_INIT. ScriptError before."""
        if self._attempt.keyed is None:
            raise ScriptError("there are no keys before IKE_SA_INIT")
        return self._attempt.keyed

    @property
    def next_id(self) -> int:
        """The Message ID of our next request."""
        return self._attempt.next_id

    def start_over(self) -> None:
        """Forget the IKE SA; the next IKE_SA_INIT has a new SPI."""
        self._attempt = _Attempt(True, self.entropy.octets(SPI_OCTETS))
        self.child = None

    # --- messages

    def message(
        self,
        exchange: int,
        payloads: Iterable[Payload] = (),
        *,
        message_id: int | None = None,
        is_response: bool = False,
    ) -> Message:
        """A message of this IKE SA; a request takes the next Message ID where none is given."""
        attempt = self._attempt
        if message_id is None:
            message_id = attempt.next_id
            attempt.next_id += 1
        return Message(
            attempt.spi_i,
            attempt.spi_r,
            exchange,
            attempt.is_initiator,
            is_response,
            message_id,
            tuple(payloads),
        )

    async def send(self, message: Message, body: SealedBody | None = None) -> bytes:
        """Send a message, sealed if there are keys and it is not IKE_SA_INIT; the octets, to send them again.

        `body`: these inner octets instead of the message's payloads, right or wrong.
        """
        in_clear = message.exchange == ExchangeType.IKE_SA_INIT or self._attempt.keyed is None
        octets = message.encode() if in_clear else self.keyed.protection.seal(message, body)
        inner = f" {len(body.octets)} inner octets as the script made them" if body else ""
        self._step(Direction.SENT, summary(message) + inner)
        await self.wire.send(octets)
        return octets

    def fragments(self, message: Message, limit_octets: int) -> tuple[bytes, ...]:
        """The message sealed in fragments (RFC 7383 2.5) whose UDP payload has at most so many octets."""
        return self.keyed.protection.seal_datagrams(message, limit_octets=limit_octets)

    async def send_octets(self, octets: bytes, what: str) -> None:
        """Send a datagram as it is, right or wrong; `what` is its line in the transcript."""
        self._step(Direction.SENT, what)
        await self.wire.send(octets)

    async def receive(self, seconds: float | None = None) -> Message | None:
        """The next message of this IKE SA, opened; None if none comes in time."""
        if self._attempt.waiting:
            return self._attempt.waiting.popleft()
        return await self._receive(self.wait_s if seconds is None else seconds)

    async def _receive(self, seconds: float) -> Message | None:
        while (data := await self.wire.receive(seconds)) is not None:
            try:
                message = Message.parse(data)
                if not self._is_ours(message):
                    continue
                message = self._open(message)
            except (ParseError, IntegrityError) as error:
                self.note(f"{len(data)} octets that cannot be read: {error or type(error).__name__}")
                continue
            self._step(Direction.RECEIVED, summary(message))
            return message
        return None

    def _is_ours(self, message: Message) -> bool:
        """Of this IKE SA; a peer that waits to be called takes any first request."""
        return self._attempt.spi_i in (NO_SPI, message.spi_i)

    def _open(self, message: Message) -> Message:
        keyed = self._attempt.keyed
        if message.encrypted is None or keyed is None:
            return message
        first_type, inner = keyed.protection.open(message.raw)
        return Message(
            message.spi_i,
            message.spi_r,
            message.exchange,
            message.is_initiator,
            message.is_response,
            message.message_id,
            parse_payloads(first_type, inner),
            message.raw,
        )

    async def answer_to(self, message_id: int, seconds: float | None = None) -> Message | None:
        """The response with this Message ID; requests that come before it wait for `receive`."""
        while (message := await self._receive(self.wait_s if seconds is None else seconds)) is not None:
            if message.is_response and message.message_id == message_id:
                return message
            if not message.is_response:
                self._attempt.waiting.append(message)
        return None

    async def request(
        self,
        exchange: int,
        payloads: Iterable[Payload] = (),
        *,
        body: SealedBody | None = None,
        message_id: int | None = None,
    ) -> Message | None:
        """Send a request, again if need be, and wait for its answer; None if there is none."""
        message = self.message(exchange, payloads, message_id=message_id)
        octets = await self.send(message, body)
        for _ in range(self.tries - 1):
            if (answer := await self.answer_to(message.message_id)) is not None:
                return answer
            await self.wire.send(octets)
        return await self.answer_to(message.message_id)

    async def next_request(self, exchange: int, seconds: float) -> Message:
        """The gateway's next request of an exchange; others are answered with an empty response. ScriptError."""
        while (message := await self.receive(seconds)) is not None:
            if not message.is_response and message.exchange == exchange:
                return message
            if not message.is_response:
                await self.respond(message)
        raise ScriptError(f"the gateway sent no {ExchangeType(exchange).name} request in {seconds:.0f} s")

    async def respond(self, request: Message, payloads: Iterable[Payload] = ()) -> bytes:
        """Send the response to a request."""
        return await self.send(
            self.message(request.exchange, payloads, message_id=request.message_id, is_response=True)
        )

    # --- as initiator

    def init_request(
        self, cookie: bytes = b"", group: int | None = None, beside: Iterable[Payload] = ()
    ) -> Message:
        """IKE_SA_INIT: [N(COOKIE)], SAi1, KEi, Ni, [N(NAT_DETECTION_*)], `beside`, [V]."""
        attempt, connection = self._attempt, self.connection
        group = group or attempt.group or ke_groups(connection.ike_proposals)[0]
        if attempt.key_exchange is None or group != attempt.group:
            attempt.key_exchange, attempt.group = KeyExchange(group), group
            attempt.public = attempt.key_exchange.generate(self.entropy)
        attempt.nonce = attempt.nonce or self.entropy.octets(NONCE_OCTETS)
        payloads: list[Payload] = [NotifyPayload(NotifyType.COOKIE, cookie)] if cookie else []
        payloads += [
            SaPayload(number_proposals(connection.ike_proposals)),
            KePayload(group, attempt.public),
            NoncePayload(attempt.nonce),
            *self._nat_detection(),
            *beside,
        ]
        if connection.extension:
            payloads.append(VendorIdPayload(connection.extension.vendor_id))
        return self.message(ExchangeType.IKE_SA_INIT, payloads, message_id=0)

    def _nat_detection(self) -> tuple[Payload, ...]:
        """None, so that nothing floats; hashes that nothing matches where ESP is to be in UDP (RFC 7296 2.23)."""
        if not self.connection.force_udp:
            return ()
        kinds = NotifyType.NAT_DETECTION_SOURCE_IP, NotifyType.NAT_DETECTION_DESTINATION_IP
        return tuple(NotifyPayload(kind, self.entropy.octets(20)) for kind in kinds)

    async def init(self, *beside: Payload) -> Message:
        """The whole of IKE_SA_INIT with its cookies and other groups; the answer. ScriptError without one.

        `beside`: payloads to announce more than a scripted peer does by itself.
        """
        cookie, group = b"", None
        for _ in range(MAX_INIT_ROUNDS):
            request = self.init_request(cookie, group, beside)
            answer = await self._init_round(request)
            if answer.get(KePayload):
                self._use_answer(request, answer)
                return answer
            asked_cookie = answer.notify(NotifyType.COOKIE)
            asked_group = answer.notify(NotifyType.INVALID_KE_PAYLOAD)
            if asked_cookie:
                cookie = asked_cookie.data
            elif asked_group and len(asked_group.data) == 2:
                group = int.from_bytes(asked_group.data, "big")
                if group not in ke_groups(self.connection.ike_proposals):
                    break
            else:
                break
        raise ScriptError("the gateway refused IKE_SA_INIT")

    async def _init_round(self, request: Message) -> Message:
        octets = await self.send(request)
        for attempt in range(self.tries):
            if attempt:
                await self.wire.send(octets)
            if (answer := await self.answer_to(0)) is not None:
                return answer
        raise ScriptError("the gateway does not answer IKE_SA_INIT")

    def _use_answer(self, request: Message, answer: Message) -> None:
        attempt = self._attempt
        sa, ke, nonce = answer.get(SaPayload), answer.get(KePayload), answer.get(NoncePayload)
        offered = number_proposals(self.connection.ike_proposals)
        if sa is None or ke is None or nonce is None or not is_valid_selection(sa.proposals, offered):
            raise ScriptError("the answer to IKE_SA_INIT cannot be used")
        if attempt.key_exchange is None or ke.group != attempt.group:
            raise ScriptError("the answer to IKE_SA_INIT has another group")
        attempt.spi_r = answer.spi_r
        attempt.init = InitMaterial(request.encode(), answer.raw, attempt.nonce, nonce.data)
        self._use_keys(sa.proposals[0], attempt.key_exchange.derive(ke.data), answer)

    def _use_keys(self, proposal: Proposal, shared: bytes, peer_init: Message) -> None:
        attempt, prf = self._attempt, proposal.of_type(TransformType.PRF)
        if attempt.init is None or not prf:
            raise ScriptError("no PRF was agreed")
        init = attempt.init
        keys = derive_ike_keys(proposal, init.nonce_i, init.nonce_r, shared, attempt.spi_i, attempt.spi_r)
        protection = Protection(proposal, keys, attempt.is_initiator)
        attempt.keyed = Keyed(proposal, Prf(prf[0].id), keys, protection)
        attempt.peer_vendor_ids = frozenset(vendor.data for vendor in peer_init.all(VendorIdPayload))
        attempt.next_id = 1 if attempt.is_initiator else 0

    @property
    def has_extension(self) -> bool:
        """Both ends announced the connection's extension by Vendor ID."""
        extension = self.connection.extension
        return extension is not None and extension.vendor_id in self._attempt.peer_vendor_ids

    def auth_payloads(self) -> list[Payload]:
        """IDi (or IDr), AUTH and, where it is on, the extension's notify: right ones, for a script to change."""
        identity_class = IdiPayload if self.is_initiator else IdrPayload
        identity = identity_class(self.connection.local_id)
        data = psk_auth(self.keyed.prf, self._psk, self._signed(identity, by_initiator=self.is_initiator))
        payloads: list[Payload] = [identity, AuthPayload(AuthMethod.SHARED_KEY_MIC, data)]
        extension = self.connection.extension
        if self.has_extension and extension:
            payloads.append(NotifyPayload(extension.notify_type, extension.notify_data))
        return payloads

    def _signed(self, identity: IdiPayload | IdrPayload, *, by_initiator: bool) -> bytes:
        init, keyed = self._attempt.init, self.keyed
        if init is None:
            raise ScriptError("AUTH before IKE_SA_INIT")
        if by_initiator:
            return signed_octets(
                keyed.prf, init.request, init.nonce_r, keyed.keys.sk_pi, identity.encode_body()
            )
        return signed_octets(keyed.prf, init.response, init.nonce_i, keyed.keys.sk_pr, identity.encode_body())

    def take_auth(self, message: Message) -> bool:
        """Whether the AUTH payload in the gateway's message proves that it knows the secret; then the SA is up."""
        identity: IdiPayload | IdrPayload | None = (
            message.get(IdrPayload) if self.is_initiator else message.get(IdiPayload)
        )
        auth = message.get(AuthPayload)
        if identity is None or auth is None:
            return False
        octets = self._signed(identity, by_initiator=not self.is_initiator)
        self._attempt.is_up = hmac.compare_digest(psk_auth(self.keyed.prf, self._psk, octets), auth.data)
        return self._attempt.is_up

    def child_config(self) -> ChildConfig:
        """The child to ask for: one of the extension where it is on. ScriptError if there is none."""
        if not self.has_extension:
            config = first_child(self.connection)
        else:
            config = next((child for child in self.connection.children if child.extension), None)
        if config is None:
            raise ScriptError("the configuration has no child for this gateway")
        return config

    def child_terms(self, spi_in: bytes | None = None) -> ChildTerms:
        """[N(USE_TRANSPORT_MODE)], SA, TSi, TSr for a child (`payloads`), without a key exchange of its own."""
        spi_in = spi_in or self.entropy.octets(CHILD_SPI_OCTETS)
        return propose(self.child_config(), spi_in, Ends.of(self.wire.path), None, with_ke=False)

    async def auth(self) -> Message:
        """IKE_AUTH, with a child unless the extension is on. ScriptError if the gateway does not prove itself."""
        terms = None if self.has_extension else self.child_terms()
        payloads = [*self.auth_payloads(), *(terms.payloads() if terms else ())]
        answer = await self.request(ExchangeType.IKE_AUTH, payloads)
        if answer is None or not self.take_auth(answer):
            raise ScriptError("the gateway did not authenticate")
        granted = ChildTerms.read(answer)
        init = self._attempt.init
        if terms and granted and init:
            self._take_child(terms, granted, (init.nonce_i, init.nonce_r))
        return answer

    async def establish(self) -> None:
        """IKE_SA_INIT, IKE_AUTH and a child, all as they should be. ScriptError if the gateway refuses."""
        await self.init()
        await self.auth()
        if self.child is None:
            await self.create_child()

    async def create_child(self) -> Message:
        """CREATE_CHILD_SA for a child. ScriptError if the gateway refuses."""
        terms, nonce = self.child_terms(), NoncePayload(self.entropy.octets(NONCE_OCTETS))
        answer = await self.request(ExchangeType.CREATE_CHILD_SA, terms.payloads(nonce))
        granted, peer_nonce = (ChildTerms.read(answer), answer.get(NoncePayload)) if answer else (None, None)
        if answer is None or granted is None or peer_nonce is None:
            raise ScriptError("the gateway refused a child")
        self._take_child(terms, granted, (nonce.data, peer_nonce.data))
        return answer

    def _take_child(self, asked: ChildTerms, granted: ChildTerms, nonces: tuple[bytes, bytes]) -> None:
        spi_in, spi_out = asked.proposals[0].spi, granted.proposals[0].spi
        self.child = ScriptedChild(self.child_config(), spi_in, spi_out, granted.ts, nonces)

    def rekey_payloads(self, nonce: bytes) -> tuple[Payload, ...]:
        """N(REKEY_SA), SA, Ni, TSi, TSr: a rekey of `child` with this nonce. ScriptError without a child."""
        if self.child is None:
            raise ScriptError("there is no child to rekey")
        rekey = NotifyPayload(NotifyType.REKEY_SA, protocol=ProtocolId.ESP, spi=self.child.spi_in)
        return rekey, *self.child_terms().payloads(NoncePayload(nonce))

    def grant(self, asked: ChildTerms, ts: TrafficSelectors | None = None) -> ChildTerms:
        """What one who grants the request answers: its first proposal of ours, and `ts` or what was asked for."""
        chosen = select_proposal(asked.proposals, self.child_config().proposals)
        if chosen is None:
            raise ScriptError("the gateway proposes other algorithms for the child")
        proposal = replace(chosen, spi=self.entropy.octets(CHILD_SPI_OCTETS))
        return ChildTerms((proposal,), ts or asked.ts, asked.mode, accepts_tfc=False)

    async def collect_deletes(self, seconds: float) -> list[bytes]:
        """Answer the gateway's next three requests, or fewer if it is silent for so long; the ESP SPIs it deleted."""
        deleted: list[bytes] = []
        for _ in range(3):
            message = await self.receive(seconds)
            if message is None:
                break
            if not message.is_response:
                await self.respond(message)
                deleted += [spi for delete in message.all(DeletePayload) for spi in delete.spis]
        return deleted

    # --- as responder

    async def accept_init(self, seconds: float) -> Message:
        """Wait for the gateway's IKE_SA_INIT and answer it as one should; its request. ScriptError."""
        self._attempt = _Attempt(False, NO_SPI)
        while (request := await self._receive(seconds)) is not None:
            sa, ke, nonce = request.get(SaPayload), request.get(KePayload), request.get(NoncePayload)
            if request.is_response or request.message_id or sa is None or ke is None or nonce is None:
                continue
            chosen = select_proposal(sa.proposals, self.connection.ike_proposals)
            if chosen is None or ke.group not in ke_groups((chosen,)):
                raise ScriptError("the gateway proposes other algorithms for the IKE SA")
            await self._answer_init(request, chosen, ke, nonce)
            return request
        raise ScriptError(f"the gateway sent no IKE_SA_INIT in {seconds:.0f} s")

    async def _answer_init(
        self, request: Message, chosen: Proposal, ke: KePayload, nonce: NoncePayload
    ) -> None:
        attempt = self._attempt
        attempt.spi_i, attempt.spi_r = request.spi_i, self.entropy.octets(SPI_OCTETS)
        attempt.nonce, key_exchange = self.entropy.octets(NONCE_OCTETS), KeyExchange(ke.group)
        public = key_exchange.generate(self.entropy)
        payloads: list[Payload] = [
            SaPayload((chosen,)),
            KePayload(ke.group, public),
            NoncePayload(attempt.nonce),
            *self._nat_detection(),
        ]
        if self.connection.extension:
            payloads.append(NotifyPayload(NotifyType.CHILDLESS_IKEV2_SUPPORTED))
            payloads.append(VendorIdPayload(self.connection.extension.vendor_id))
        answer = self.message(ExchangeType.IKE_SA_INIT, payloads, message_id=0, is_response=True)
        octets = await self.send(answer)
        attempt.init = InitMaterial(request.raw, octets, nonce.data, attempt.nonce)
        self._use_keys(chosen, key_exchange.derive(ke.data), request)

    async def accept_auth(self, seconds: float = 10.0) -> Message:
        """Wait for the gateway's IKE_AUTH request and check it; answering it is the script's. ScriptError."""
        request = await self.next_request(ExchangeType.IKE_AUTH, seconds)
        if not self.take_auth(request):
            raise ScriptError("the gateway did not authenticate")
        return request

    # --- afterwards

    async def is_alive(self) -> bool:
        """Whether the gateway answers an empty INFORMATIONAL of this IKE SA."""
        return await self.request(ExchangeType.INFORMATIONAL) is not None

    async def close(self) -> None:
        """Delete the IKE SA if it came up; no answer is no matter."""
        if self._attempt.is_up:
            request = self.message(ExchangeType.INFORMATIONAL, (DeletePayload(ProtocolId.IKE),))
            await self.send(request)
            await self.answer_to(request.message_id)

    async def serves_after(self, tries: int = 45) -> float | None:
        """After how many seconds a new IKE_SA_INIT is answered; None if it never is.

        A gateway under load may leave an address without answers for as long as its half-open SAs last.
        """
        self.start_over()
        octets = await self.send(self.init_request())
        for attempt in range(tries):
            if attempt:
                await self.wire.send(octets)
            if await self.answer_to(0) is not None:
                return attempt * self.wait_s
        return None


def in_short(message: Message | None) -> str:
    """What a gateway answered, as one phrase: its notifies, else its payloads, or "no answer"."""
    if message is None:
        return "no answer"
    told = message.notifies or message.payloads
    return (
        " ".join(describe(payload, is_response=message.is_response) for payload in told)
        or "an empty response"
    )
