"""IKE_AUTH: proving who one is, with the first child or without (RFC 7296 1.2, 2.15, 2.21.2; RFC 6023).

    HDR, SK {IDi, [CERT+], [N(INITIAL_CONTACT)], [CERTREQ], [IDr], AUTH, [N(extension)],
             [[N+], SAi2, TSi, TSr]}  -->
                                    <--  HDR, SK {IDr, [CERT+], AUTH, [N(extension)], [[N+], SAr2, TSi, TSr]}

Must not know how a method computes its AUTH data (credentials.py), or windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ike.child import Agreement, Child, ChildTerms, agree, propose
from ike.config import ChildConfig, Connection
from ike.configuration import Ends
from ike.directory import is_at
from ike.events import ChildSaFailed, CloseReason, Event, FailureReason
from ike.exchanges.auth_lifetime import announced_lifetime, lifetime_notify
from ike.exchanges.configuration import (
    Given,
    ends_of_request,
    read_configuration,
    request_configuration,
    respond_configuration,
)
from ike.exchanges.create_child import check_grant, grant_terms, install
from ike.exchanges.credentials import (
    certificate_requests,
    certificates,
    fits,
    make_auth,
    verify_auth,
    wants_raw_key,
    why_no_auth,
)
from ike.exchanges.exchange import AddChild, Establish, Exchange, Fail, Outcome, Priority, error_in
from ike.exchanges.informational import DeleteChildSa, delete_ike_sa
from ike.exchanges.mobike import is_modified, mobike_agreed, mobike_offer
from ike.exchanges.refusal import Refused, refusal_event
from ike.exchanges.schema import Story
from ike.identities import identity_key, specificity, stands_for
from ike.numbers import AuthMethod, ExchangeType, NotifyType, name_of
from ike.places import why_no_place
from ike.proposals import select_proposal
from ike.wire.identity import Identity
from ike.wire.message import Message
from ike.wire.payloads import AuthPayload, IdiPayload, IdPayload, IdrPayload, NotifyPayload, Payload

if TYPE_CHECKING:
    from ike.sa import IkeSa


class Authenticate(Exchange):
    """The initiator's side, on one candidate IKE SA."""

    exchange_type = ExchangeType.IKE_AUTH
    priority = Priority.REKEY

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._child: ChildConfig | None = None
        self._asked: ChildTerms | None = None
        self._spi_in = b""

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        connection = self._connection
        idi = IdiPayload(connection.local_id)
        payloads: list[Payload] = [
            idi,
            *certificates(connection.auth, wants_raw_key=sa.wants_raw_key),
        ]
        if connection.initial_contact and not _knows_peer(sa, connection):
            payloads.append(NotifyPayload(NotifyType.INITIAL_CONTACT))
        payloads.extend(certificate_requests((connection,)))
        if isinstance(connection.peer_id, Identity) and connection.peer_id != Identity.null():
            payloads.append(IdrPayload(connection.peer_id))
        payloads.append(make_auth(sa, connection.auth, idi))
        if _is_announced(sa, connection):
            payloads.extend(_extension_notify(connection))
        payloads.extend(request_configuration(sa, connection))
        payloads.extend(mobike_offer(sa, connection, is_request=True))
        self._child = None if self._is_childless(sa) else first_child(connection)
        if self._child:
            self._spi_in = sa.host.new_child_spi()
            ends = ends_of_request(sa, connection)
            self._asked = propose(self._child, self._spi_in, ends, None, with_ke=False)
            payloads.extend(self._asked.payloads())
        return payloads

    def _is_childless(self, sa: IkeSa) -> bool:
        """No name of a child reaches a responder that may have the extension but is not authenticated yet."""
        if self._connection.request_addresses:
            return False
        return sa.offers_childless and (self._connection.childless or _is_announced(sa, self._connection))

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        connection = self._connection
        error = error_in(message)
        if story is Story.AUTH_ERROR and error:
            name = name_of(NotifyType, error.notify_type)
            is_auth = error.notify_type == NotifyType.AUTHENTICATION_FAILED
            reason = FailureReason.AUTHENTICATION_FAILED if is_auth else FailureReason.REFUSED
            return Outcome(end=Fail(reason, f"the peer answered IKE_AUTH with {name}"))
        idr, auth = message.get(IdrPayload), message.get(AuthPayload)
        failure = self._why_not(sa, idr, auth, message)
        if failure or idr is None or auth is None:
            words = (NotifyPayload(NotifyType.AUTHENTICATION_FAILED),)
            return Outcome(end=Fail(FailureReason.AUTHENTICATION_FAILED, failure, words))
        extension_data = _extension_data(sa, connection, message)
        if connection.extension_required and extension_data is None:
            return Outcome(end=_extension_absent(connection))
        is_only_one = message.notify(NotifyType.INITIAL_CONTACT) is not None
        assigned = read_configuration(connection, message)
        if isinstance(assigned, Fail):
            return Outcome(end=assigned)
        peer_id = _proven_identity(idr, auth)
        established = Establish(
            connection,
            connection.local_id,
            peer_id,
            extension_data,
            is_only_one,
            assigned,
            mobike_agreed(connection, message),
        )
        outcome = self._with_child(sa, message, established)
        return replace(outcome, auth_lifetime_s=announced_lifetime(message))

    def _why_not(self, sa: IkeSa, idr: IdrPayload | None, auth: AuthPayload | None, message: Message) -> str:
        """Why the peer is not who it should be; empty if it is."""
        wanted = self._connection.peer_id
        if idr is None or auth is None:
            return "the peer sent no IDr and AUTH"
        peer_id = _proven_identity(idr, auth)
        if not stands_for(wanted, peer_id):
            return f"the peer is {peer_id.text()}, not {wanted.text() if wanted else 'anybody'}"
        if not isinstance(wanted, Identity) and specificity(wanted) < _most_specific(_meant(sa, peer_id)):
            return f"{peer_id.text()} has a connection of its own"
        failure = verify_auth(sa, self._connection.proofs, idr, auth, message)
        return failure or why_no_place(sa.host, self._connection, peer_id)

    def _with_child(self, sa: IkeSa, message: Message, established: Establish) -> Outcome:
        """The IKE SA is up whatever becomes of the child (RFC 7296 1.2)."""
        config, asked, init = self._child, self._asked, sa.init
        if config is None or asked is None or init is None:
            return Outcome(establish=established)
        number, name = sa.session.number, self._connection.name
        error, granted = error_in(message), ChildTerms.read(message)
        if error or granted is None:
            kind = error.notify_type if error else None
            detail = f"the peer answered {name_of(NotifyType, kind)}" if kind is not None else "no answer"
            failed: Event = ChildSaFailed(number, name, config.name, kind, detail)
            return Outcome(establish=established, events=(failed,))
        if established.assigned:
            # Now our address is known, and the grant must not reach beyond it.
            ends = Ends.of(sa.path, established.assigned)
            asked = replace(asked, ts=propose(config, self._spi_in, ends, None, with_ke=False).ts)
        try:
            granted = check_grant(sa, asked, granted)
        except Refused as refused:
            delete = DeleteChildSa(self._spi_in, CloseReason.UNACCEPTABLE_ANSWER, is_installed=False)
            failed = ChildSaFailed(number, name, config.name, None, refused.detail)
            return Outcome(establish=established, start=(delete,), events=(failed,))
        nonces = (init.nonce_i, init.nonce_r)
        child = install(sa, config, self._spi_in, granted, granted.accepts_tfc, nonces, None, is_creator=True)
        return Outcome(establish=established, add=AddChild(child))


def first_child(connection: Connection) -> ChildConfig | None:
    """The child for IKE_AUTH: the one that is named, else the first that needs no extension."""
    plain = [child for child in connection.children if child.extension is None]
    named = [child for child in plain if child.name == connection.first_child]
    return next(iter(named or plain), None)


def _is_announced(sa: IkeSa, connection: Connection) -> bool:
    """Both ends sent the Vendor ID of the connection's extension."""
    return connection.extension is not None and connection.extension.vendor_id in sa.vendor_ids


def _extension_notify(connection: Connection) -> tuple[NotifyPayload, ...]:
    extension = connection.extension
    return (NotifyPayload(extension.notify_type, extension.notify_data),) if extension else ()


def _extension_data(sa: IkeSa, connection: Connection, message: Message) -> bytes | None:
    """The data of the peer's notify when the extension is on, else None."""
    extension = connection.extension
    if extension is None or not _is_announced(sa, connection):
        return None
    notify = message.notify(extension.notify_type)
    return notify.data if notify else None


def _extension_absent(connection: Connection) -> Fail:
    name = connection.extension.name if connection.extension else ""
    detail = f"the authenticated peer did not announce {name}"
    return Fail(FailureReason.EXTENSION_ABSENT, detail, (delete_ike_sa(),), connection)


def _proven_identity(identity: IdPayload, auth: AuthPayload) -> Identity:
    """Whom AUTH can prove: nobody, whatever the ID payload says, if its method is NULL (RFC 7619 2.2)."""
    return Identity.null() if auth.method == AuthMethod.NULL else identity.identity


def _knows_peer(sa: IkeSa, connection: Connection) -> bool:
    """Whether another IKE SA of these identities is up, so that this one is not the first contact.

    Nobody in particular is never known (RFC 7619 2.3).
    """
    return Identity.null() in (connection.local_id, connection.peer_id) or any(
        other.peer_id is not None
        and other.established_at is not None
        and other.local_id == connection.local_id
        and stands_for(connection.peer_id, other.peer_id)
        for other in sa.host.sessions.values()
    )


@dataclass(frozen=True, slots=True)
class _FirstChild:
    """What the responder does about the child in IKE_AUTH."""

    payloads: Sequence[Payload] = ()
    child: Child | None = None
    events: Sequence[Event] = ()


def respond_auth(sa: IkeSa, message: Message) -> Outcome:
    """The responder's side: identity chooses the connection, AUTH proves the identity."""
    idi, auth = message.get(IdiPayload), message.get(AuthPayload)
    if idi is None or auth is None:
        raise Refused(NotifyType.INVALID_SYNTAX, "no IDi and AUTH")
    peer_id = _proven_identity(idi, auth)
    connection = _find_connection(sa, peer_id, message.get(IdrPayload), auth.method)
    if connection is None:
        return _authentication_failed(f"no connection for {peer_id.text()} at {sa.path.peer[0]}", None)
    failure = verify_auth(sa, connection.proofs, idi, auth, message)
    failure = failure or why_no_auth(connection.auth, sa.peer_hashes)
    failure = failure or why_no_place(sa.host, connection, peer_id)
    if failure:
        return _authentication_failed(failure, connection)
    idr = IdrPayload(connection.local_id)
    own = certificates(connection.auth, wants_raw_key=wants_raw_key(message))
    payloads: list[Payload] = [idr, *own, make_auth(sa, connection.auth, idr)]
    if _is_announced(sa, connection):
        payloads.extend(_extension_notify(connection))
    told = mobike_agreed(connection, message)
    if told is not None:
        if is_modified(message, sa.path):
            notify = NotifyPayload(NotifyType.UNEXPECTED_NAT_DETECTED)
            fail = Fail(
                FailureReason.REFUSED, "a NAT is between, but no NAT traversal", connection=connection
            )
            return Outcome(response=(notify,), end=fail)
        payloads.extend(mobike_offer(sa, connection, is_request=False))
    extension_data = _extension_data(sa, connection, message)
    if connection.extension_required and extension_data is None:
        if ChildTerms.read(message):
            payloads.append(NotifyPayload(NotifyType.TS_UNACCEPTABLE))
        return Outcome(response=payloads, end=_extension_absent(connection))
    has_child = ChildTerms.read(message) is not None
    given = respond_configuration(sa, connection, peer_id, message, with_child=has_child)
    payloads.extend(given.reply)
    payloads.extend(lifetime_notify(connection))
    first = _respond_first_child(sa, connection, message, extension_data, given)
    payloads.extend(first.payloads)
    is_only_one = message.notify(NotifyType.INITIAL_CONTACT) is not None
    return Outcome(
        response=payloads,
        establish=Establish(
            connection, connection.local_id, peer_id, extension_data, is_only_one, None, told
        ),
        leased=given.leased,
        add=AddChild(first.child) if first.child else None,
        events=first.events,
    )


def _authentication_failed(detail: str, connection: Connection | None) -> Outcome:
    notify = NotifyPayload(NotifyType.AUTHENTICATION_FAILED)
    fail = Fail(FailureReason.AUTHENTICATION_FAILED, detail, connection=connection)
    return Outcome(response=(notify,), end=fail)


def _meant(sa: IkeSa, peer_id: Identity) -> list[Connection]:
    return sa.host.directory.meant_by(peer_id)


def _most_specific(meant: Sequence[Connection]) -> int:
    return max((specificity(connection.peer_id) for connection in meant), default=0)


def _find_connection(
    sa: IkeSa, peer_id: Identity, idr: IdrPayload | None, auth_method: int
) -> Connection | None:
    """By identity and address (RFC 7296 1.2, RFC 4301 4.4.3).

    Who has a connection of its own gets none that stands for many, wherever it is and whatever it proves: else
    one of the many could pass for it. The named IDr is preferred, then what the AUTH method can prove.
    """
    meant = _meant(sa, peer_id)
    most = _most_specific(meant)
    fitting = [
        connection
        for connection in meant
        if specificity(connection.peer_id) == most
        and is_at(connection, sa.path.local[0], sa.path.peer[0])
        and select_proposal((sa.keyed.proposal,), connection.ike_proposals)
    ]
    fitting.sort(
        key=lambda connection: (
            idr is not None and identity_key(idr.identity) != identity_key(connection.local_id),
            not any(fits(proof, auth_method) for proof in connection.proofs),
        )
    )
    return next(iter(fitting), None)


def _respond_first_child(
    sa: IkeSa, connection: Connection, message: Message, extension_data: bytes | None, given: Given
) -> _FirstChild:
    terms, init = ChildTerms.read(message), sa.init
    if terms is None or init is None:
        return _FirstChild((given.refused.notify,) if given.refused else ())
    terms = terms.seen_from_here(sa.path, sa.nat, tsi_is_local=False)
    extension = connection.extension.name if connection.extension and extension_data is not None else None
    configs = [child for child in connection.children if child.extension == extension]
    try:
        if given.refused:
            raise given.refused
        ends = Ends.of(sa.path, leased=given.leased)
        agreed: Agreement = agree(terms, configs, ends, sa.host.registry, in_auth=True)
    except Refused as refused:
        return _FirstChild((refused.notify,), events=(refusal_event(sa, refused, connection.name),))
    spi_in = sa.host.new_child_spi()
    nonces = (init.nonce_i, init.nonce_r)
    child = install(sa, agreed.config, spi_in, agreed, terms.accepts_tfc, nonces, None, is_creator=False)
    return _FirstChild(grant_terms(agreed, spi_in).payloads(), child)
