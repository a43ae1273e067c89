"""What the tests of the engine share: children, pairs with chosen nonces, a network that obeys, a check of harmony."""

from collections.abc import Callable
from dataclasses import replace

from ike import (
    ChildConfig,
    ChildSa,
    Datagram,
    DynamicSelector,
    EngineSettings,
    IkeSaEstablished,
    Mode,
    parse_esp_proposal,
)
from ike.numbers import ExchangeType
from ike.testing.link import ImpairedLink
from ike.testing.pair import LEFT_ADDRESS, Pair, Side, connections
from ike.wire.message import Header

NONCE_OCTETS = 40
"""No other draw of entropy has this size, so a test can queue nonces without counting the draws."""
SETTINGS = EngineSettings(nonce_octets=NONCE_OCTETS)
CHILD = ChildConfig(
    "net",
    (parse_esp_proposal("aes256gcm16"),),
    Mode.TRANSPORT,
    (DynamicSelector(137),),
    (DynamicSelector(137),),
    rekey_s=None,
    hard_s=None,
)
QUIET = {"liveness_s": None, "ike_rekey_s": None, "ike_hard_s": None}


def nonce(first: int) -> bytes:
    return bytes([first]) * NONCE_OCTETS


class Tap:
    """The way between the two: `hold` keeps what a test names until it lets it go; `seen` is everything."""

    def __init__(self) -> None:
        self.seen: list[Datagram] = []
        self.held: list[Datagram] = []
        self._rules: list[tuple[Callable[[Datagram], bool], int]] = []

    def __call__(self, datagram: Datagram) -> tuple[Datagram, ...]:
        self.seen.append(datagram)
        for index, (rule, count) in enumerate(self._rules):
            if count and rule(datagram):
                self._rules[index] = (rule, count - 1)
                self.held.append(datagram)
                return ()
        return (datagram,)

    def hold(self, rule: Callable[[Datagram], bool], count: int = 1000) -> None:
        """Keep the next `count` datagrams of that kind."""
        self._rules.append((rule, count))

    def open(self) -> None:
        self._rules.clear()

    def release(self, pair: Pair) -> None:
        """Let everything arrive that was kept, late, in its order."""
        self.open()
        held, self.held = self.held, []
        for datagram in held:
            side = pair.left if datagram.path.local[0] == LEFT_ADDRESS else pair.right
            side.engine.receive_datagram(datagram.data, datagram.path, pair.now)
            pair.flush()


def message(
    *, sent_by: Side, exchange: ExchangeType | None = None, is_response: bool | None = None
) -> Callable[[Datagram], bool]:
    """A rule for a Tap: sent by one side, of an exchange, request or response."""

    def rule(datagram: Datagram) -> bool:
        header = Header.parse(datagram.data)
        return (
            datagram.path.peer[0] == sent_by.path.local[0]
            and (exchange is None or header.exchange == exchange)
            and (is_response is None or header.is_response is is_response)
        )

    return rule


def new_pair(
    child: ChildConfig = CHILD,
    *,
    left: dict[str, object] | None = None,
    right: dict[str, object] | None = None,
    settings: EngineSettings = SETTINGS,
    link: ImpairedLink | None = None,
    seed: int | str = 0,
    right_child: ChildConfig | None = None,
    **options: object,
) -> tuple[Pair, Tap]:
    """Two sides that do nothing of themselves."""
    tap = Tap()
    link = link or ImpairedLink()
    link.on_path = tap
    left_connections, right_connections = connections(
        child, left=QUIET | (left or {}), right=QUIET | (right or {})
    )
    if right_child:
        right_connections = [replace(right_connections[0], children=(right_child,))]
    pair = Pair(
        left_connections,
        right_connections,
        link=link,
        seed=seed,
        **({"left_settings": settings, "right_settings": settings} | options),  # type: ignore[arg-type]
    )
    return pair, tap


def established(**options: object) -> tuple[Pair, Tap]:
    """An IKE SA that left has opened, with one child that left has made."""
    pair, tap = new_pair(**options)  # type: ignore[arg-type]
    pair.initiate()
    pair.run(2, until=lambda: bool(pair.left.all(IkeSaEstablished)))
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(2)
    assert_in_sync(pair, children=1)
    tap.seen.clear()
    return pair, tap


def only_child(side: Side) -> ChildSa:
    (child,) = side.children.values()
    return child


def assert_in_sync(pair: Pair, *, children: int | None = None) -> None:
    """Both ends have the same IKE SA and the same children, with keys that fit, and the events say what is."""
    (left,), (right,) = pair.left.engine.sessions(), pair.right.engine.sessions()
    assert (left.spi_i, left.spi_r) == (right.spi_i, right.spi_r)
    assert left.is_initiator is not right.is_initiator
    assert left.state == right.state == "established"
    for side, snapshot in ((pair.left, left), (pair.right, right)):
        assert set(side.children) == {child.spi_in for child in snapshot.children}
    ours, theirs = pair.left.children, {child.spi_out: child for child in pair.right.children.values()}
    assert set(ours) == set(theirs)
    for spi, child in ours.items():
        other = theirs[spi]
        assert child.spi_out == other.spi_in
        assert (child.keys_in, child.keys_out) == (other.keys_out, other.keys_in)
        assert (child.local_ts, child.peer_ts) == (other.peer_ts, other.local_ts)
        assert child.mode == other.mode
        assert child.lowest_nonce == other.lowest_nonce
        assert child.is_creator is not other.is_creator
    if children is not None:
        assert len(ours) == children
