"""Our private notifies in INFORMATIONAL requests and answers: label bindings, questions about a path (WIRE 5).

Must not know sessions, sockets or what a label is for; each notify goes to the part that understands it.

    LABEL_BINDING      -> labels     answered by LABEL_STATUS in the same exchange
    PATH_PROBE         -> children   answered by PATH_PROBE: which dummies came
    INVALID_SELECTORS  -> mismatches no answer (RFC 7296 3.10.1)
"""

from __future__ import annotations

from collections.abc import Iterable

from endpoint.children import Child, ChildTable
from endpoint.labels import LabelExchange, LabelExchanges
from endpoint.mismatches import Mismatches
from endpoint.path_prober import PathProber
from ike import IkeEngine, NotifyAnswered
from ike.numbers import NotifyType
from ike.wire.payloads import NotifyPayload
from mpls.capability import LABEL_BINDING, LABEL_STATUS
from mpls.path_mtu import PATH_PROBE, PathReport, PathReportError

__all__ = ["Notifies", "report_dummies"]


class Notifies:
    """Both directions, of all sessions."""

    def __init__(
        self,
        engine: IkeEngine,
        children: ChildTable,
        labels: LabelExchanges,
        mismatches: Mismatches,
        paths: PathProber,
    ) -> None:
        self._engine, self._children, self._labels = engine, children, labels
        self._mismatches, self._paths = mismatches, paths

    def answer(
        self, session: int, peer: str, notifies: Iterable[NotifyPayload], now: float
    ) -> tuple[NotifyPayload, ...]:
        """What a request with these is answered with."""
        exchange = self._labels.get(session)
        answers: list[NotifyPayload] = []
        for notify in notifies:
            if notify.notify_type == NotifyType.INVALID_SELECTORS:
                # Of the peer alone: it chooses how often we look, and others may have many.
                of_session = (one for one in self._children.of_peer(peer) if one.session == session)
                child = next((one for one in of_session if one.sa.spi_out == notify.spi), None)
                self._mismatches.on_notify(session, child, notify, now)
            elif notify.notify_type == LABEL_BINDING and exchange is not None:
                status = exchange.receive_binding(notify.data)
                if status is not None:
                    answers.append(NotifyPayload(LABEL_STATUS, status))
            elif notify.notify_type == PATH_PROBE and exchange is not None:
                report = report_dummies(self._children, session, notify.data)
                if report is not None:
                    answers.append(NotifyPayload(PATH_PROBE, report))
        return tuple(answers)

    def on_answered(self, event: NotifyAnswered, now: float) -> None:
        """A request of ours was answered: to whoever asked."""
        if self._mismatches.on_answer(event.session, event.token):
            return
        answers = event.notifies or ()
        report = next((one.data for one in answers if one.notify_type == PATH_PROBE), None)
        if self._paths.on_answer(event.token, report, now):
            return
        exchange = self._labels.get(event.session)
        if exchange is None or exchange.token != event.token or event.notifies is None:
            return
        status = next((one.data for one in event.notifies if one.notify_type == LABEL_STATUS), None)
        exchange.on_response(status, now)

    def send_bindings(self, now: float) -> bool:
        """What label exchanges have to say; whether there was anything."""
        return self._labels.speak(lambda exchange: self._send_binding(exchange, now))

    def _send_binding(self, exchange: LabelExchange, now: float) -> bool:
        data = exchange.next_message()
        if data is None:
            return False
        exchange.token = self._engine.send_notify(
            exchange.session, (NotifyPayload(LABEL_BINDING, data),), now
        )
        return True

    def tell_mismatch(self, child: Child, packet: bytes, now: float) -> bool:
        """Tell the peer that this packet is not what `child` is for; False if nothing is to be told now."""
        notify = self._mismatches.notify_for(child, packet, now)
        if notify is None:
            return False
        self._mismatches.on_sent(child.session, self._engine.send_notify(child.session, (notify,), now))
        return True


def report_dummies(children: ChildTable, session: int, question: bytes) -> bytes | None:
    """What came on the child that the session's peer asks for, since it last asked; None: no answer to that."""
    try:
        asked = PathReport.parse(question)
    except PathReportError:
        return None
    child = children.get(asked.spi)
    if child is None or child.session != session or asked.arrived is not None:
        return None
    arrived, child.dummies = child.dummies, {}
    return PathReport(asked.spi, arrived).encode()
