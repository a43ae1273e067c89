"""The label bindings of a session: what is refused, what is too much, what becomes of labels when it ends (WIRE 5)."""

import logging
from dataclasses import replace
from ipaddress import ip_network

import pytest

from endpoint import plan
from endpoint.children import Child
from endpoint.config import Config
from endpoint.labels import RETRIES_S, LabelExchange
from endpoint.plan import plan_peers
from endpoint.tables import build_tables
from ike import IkeSaEstablished
from mpls.binding_table import KEEP_WITHOUT_CHILD_S, RouteAdded, RouteChange, RouteRemoved
from mpls.bindings import Entry, LabelBinding, LabelStatus, Operation, Refusal, Status
from mpls.capability import LABEL_BINDINGS, MPLS_IN_IP, Capability
from mpls.label_space import LabelState
from tests.endpoint.pair import GRANTS, End, NodePair, configuration

NOW = 2000.0
PEER = Capability(65536, LABEL_BINDINGS | MPLS_IN_IP, 1000)
FIRST_LABEL = 100_000


def pair(grants1: str = GRANTS, grants2: str = GRANTS) -> NodePair:
    configs = (
        configuration(1, 'start = "boot"', grants=grants1),
        configuration(2, 'start = "none"', grants=grants2),
    )
    return NodePair(*configs).start()


def up() -> NodePair:
    nodes = pair()
    nodes.run()
    return nodes


def exchange_of(end: End) -> LabelExchange:
    (exchange,) = end.node.labels
    return exchange


def routes_of(end: End) -> set[tuple[str, object, str, int | None]]:
    return {(vrf, cls, str(route.prefix), route.label) for vrf, cls, route in end.node.table.routes()}


class Alone:
    """The exchange of pe1 with a peer whose part the test plays, over children of a real session."""

    def __init__(
        self, peer: Capability | None = PEER, config: Config | None = None, *, may_fragment: bool = False
    ) -> None:
        self.children: dict[str, Child] = {child.kind.name: child for child in up().pe1.node.children}
        self.config = config or configuration(1)
        (self.plan,) = plan_peers(self.config)
        tables = build_tables(self.config)
        self.space, self.table = tables.space, tables.table
        self.changes: list[RouteChange] = []
        self.exchange = LabelExchange(
            self.config,
            self.plan,
            7,
            peer,
            epoch=1,
            space=self.space,
            table=self.table,
            on_route=lambda session, name, change: self.changes.append(change),
            may_fragment=may_fragment,
        )

    def child(self, *names: str) -> "Alone":
        for name in names:
            self.exchange.on_child(self.children[name])
        return self

    def next(self) -> LabelBinding | None:
        """What the exchange sends now."""
        octets = self.exchange.next_message()
        return None if octets is None else LabelBinding.parse(octets)

    def answer(
        self, status: Status, refused: tuple[tuple[int, Refusal], ...] = (), now: float = NOW
    ) -> LabelBinding:
        """Take the next message and answer it."""
        message = self.next()
        assert message is not None
        answer = LabelStatus(message.epoch, message.sequence, status, refused)
        self.exchange.on_response(answer.encode(), now)
        return message

    def refuse(self, code: Refusal, now: float = NOW) -> int:
        """Answer the next message by refusing its one label, and return that."""
        message = self.next()
        assert message is not None
        (entry,) = message.entries
        answer = LabelStatus(message.epoch, message.sequence, Status.SOME_REFUSED, ((entry.label, code),))
        self.exchange.on_response(answer.encode(), now)
        return entry.label

    def receive(
        self, *entries: Entry, sequence: int = 1, operation: Operation = Operation.ADD
    ) -> LabelStatus:
        """The peer binds labels for red/gold."""
        selector = self.children["red/gold"].outbound_selector
        assert selector is not None
        message = LabelBinding(9, sequence, operation, selector.vrf, "gold", entries)
        answer = self.exchange.receive_binding(message.encode())
        assert answer is not None
        return LabelStatus.parse(answer)

    def state(self, label: int) -> LabelState | None:
        owner = self.space.lookup(label)
        return None if owner is None else owner.state


def entry(label: int, *prefixes: str, payload: int = 3) -> Entry:
    return Entry(label, payload, tuple(ip_network(prefix) for prefix in prefixes))


# --- what is given


def test_each_vrf_and_class_gets_a_label_of_its_own_that_the_peer_routes_by() -> None:
    nodes = up()
    for end, other, number in ((nodes.pe1, nodes.pe2, 1), (nodes.pe2, nodes.pe1, 2)):
        given = exchange_of(end).labels_given()
        assert [key for *key, _ in given] == [["blue", 0], ["red", "gold"], ["red", "standard"]]
        assert len({label for *_, label in given}) == 3
        v4, v6 = f"10.{number}.0.0/24", f"2001:db8:{number}::/64"
        expected = {(vrf, cls, v4, label) for vrf, cls, label in given}
        expected |= {(vrf, cls, v6, label) for vrf, cls, label in given if vrf == "red"}
        assert routes_of(other) == expected


def test_a_label_is_accepted_before_the_peer_is_told_of_it() -> None:
    alone = Alone().child("red/gold")
    ((vrf, label_class, label),) = alone.exchange.labels_given()
    assert alone.space.accept_set("pe2", vrf, label_class) == {label}
    message = alone.next()
    assert message is not None and message.operation is Operation.ADD
    assert message.entries == (entry(label, "10.1.0.0/24", "2001:db8:1::/64"),)


def test_one_message_is_under_way_at_a_time() -> None:
    alone = Alone().child("red/gold", "blue/0")
    assert alone.next() is not None
    assert alone.next() is None
    alone = Alone().child("red/gold", "blue/0")
    alone.answer(Status.ACCEPTED)
    alone.answer(Status.ACCEPTED)
    assert alone.next() is None


def test_nothing_is_sent_while_the_engine_has_a_request_of_ours() -> None:
    alone = Alone().child("red/gold")
    alone.exchange.token = 3
    assert alone.next() is None


def test_a_second_child_of_a_kind_gets_no_second_label() -> None:
    alone = Alone().child("red/gold")
    alone.answer(Status.ACCEPTED)
    before = alone.exchange.labels_given()
    alone.child("red/gold")
    assert alone.exchange.labels_given() == before and alone.next() is None


@pytest.mark.parametrize("peer", [None, Capability(65536, MPLS_IN_IP, 1000)])
def test_without_the_capability_nothing_is_sent_and_nothing_is_taken(peer: Capability | None) -> None:
    alone = Alone(peer).child("red/gold", "blue/0")
    assert alone.next() is None and alone.exchange.labels_given() == []
    assert alone.exchange.receive_binding(b"\xa0") is None
    assert alone.exchange.next_deadline() is None
    alone.exchange.expire(NOW)
    alone.exchange.close(NOW)


# --- what is refused


@pytest.mark.parametrize("code", [code for code in Refusal if code is not Refusal.POLICY])
def test_a_refused_label_is_quarantined_told_with_the_remedy_and_not_tried_again(
    code: Refusal, caplog: pytest.LogCaptureFixture
) -> None:
    alone = Alone().child("red/gold")
    label = alone.refuse(code)
    assert alone.state(label) is LabelState.QUARANTINED
    assert alone.exchange.labels_given() == []
    assert alone.next() is None and alone.exchange.next_deadline() is None
    (record,) = caplog.records
    text = record.getMessage()
    for part in ("pe2", str(label), "red/gold", code.name.lower(), "`accept`", "`announce`"):
        assert part in text


def test_a_binding_that_overtook_its_child_is_tried_again_a_few_times_with_a_new_label(
    caplog: pytest.LogCaptureFixture,
) -> None:
    alone, now, labels = Alone().child("red/gold"), NOW, []
    for wait in RETRIES_S:
        labels.append(alone.refuse(Refusal.POLICY, now))
        assert alone.exchange.next_deadline() == now + wait
        alone.exchange.expire(now + wait - 0.001)
        assert alone.next() is None
        now += wait
        alone.exchange.expire(now)
    assert not caplog.records, "until then it may be no more than bad luck"
    labels.append(alone.refuse(Refusal.POLICY, now))
    assert len(set(labels)) == len(labels), "a quarantined label is no one's"
    assert alone.exchange.next_deadline() is None and alone.next() is None
    assert len(caplog.records) == 1 and "policy" in caplog.text


def test_a_retry_that_succeeds_is_as_good_as_a_first_try() -> None:
    alone = Alone().child("red/gold")
    alone.refuse(Refusal.POLICY)
    alone.exchange.expire(NOW + RETRIES_S[0])
    alone.answer(Status.ACCEPTED)
    ((*key, label),) = alone.exchange.labels_given()
    assert key == ["red", "gold"] and alone.state(label) is LabelState.ACTIVE


def test_nothing_is_tried_again_for_a_child_that_has_gone() -> None:
    alone = Alone().child("red/gold")
    alone.refuse(Refusal.POLICY)
    alone.exchange.on_last_child_closed("red", "gold", NOW)
    alone.exchange.expire(NOW + RETRIES_S[0])
    assert alone.next() is None and alone.exchange.labels_given() == []


def test_a_refused_label_costs_the_others_nothing() -> None:
    alone = Alone().child("red/gold", "blue/0")
    refused = alone.refuse(Refusal.PREFIX)
    alone.answer(Status.ACCEPTED)
    assert [label for *_, label in alone.exchange.labels_given()] == [refused + 1]


def test_a_prefix_outside_accept_is_refused_and_the_refused_end_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    narrow = GRANTS.replace('"2001:db8:{other}::/48"', '"2001:db8:ffff::/48"')
    nodes = pair(GRANTS, narrow)
    with caplog.at_level(logging.WARNING, "mplsec.labels"):
        nodes.run()
    assert {vrf for vrf, *_ in routes_of(nodes.pe2)} == {"blue"}, "all prefixes of a label or none"
    assert {vrf for vrf, *_ in routes_of(nodes.pe1)} == {"blue", "red"}
    assert [key for *key, _ in exchange_of(nodes.pe1).labels_given()] == [["blue", 0]]
    assert len(caplog.records) == 2 and caplog.text.count("prefix") == 2


# --- limits


def test_when_no_label_is_left_it_is_told_and_the_others_work(caplog: pytest.LogCaptureFixture) -> None:
    config = configuration(1)
    small = replace(config, endpoint=replace(config.endpoint, label_range=(FIRST_LABEL, FIRST_LABEL + 1)))
    alone = Alone(config=small).child("red/gold", "red/standard", "blue/0")
    assert [label for *_, label in alone.exchange.labels_given()] == [FIRST_LABEL, FIRST_LABEL + 1]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and "no label for blue/0" in record.getMessage()
    alone.answer(Status.ACCEPTED)
    alone.answer(Status.ACCEPTED)
    assert alone.next() is None


@pytest.mark.parametrize(("bindings", "sent"), [(0, 0), (3, 3), (5, 5), (8, 8), (100, 8)])
def test_no_more_is_sent_than_the_peer_takes_in_all(bindings: int, sent: int) -> None:
    alone = Alone(Capability(bindings, LABEL_BINDINGS, 1000)).child("red/gold", "red/standard", "blue/0")
    weight = 0
    while (message := alone.next()) is not None:
        weight += sum(one.weight for one in message.entries)
        answer = LabelStatus(message.epoch, message.sequence, Status.ACCEPTED)
        alone.exchange.on_response(answer.encode(), NOW)
    assert weight == sent, "red has two labels with two prefixes each, blue one with one"


def test_no_more_is_sent_than_the_peer_takes_in_one_message() -> None:
    alone = Alone(Capability(65536, LABEL_BINDINGS, 2)).child("red/gold", "blue/0")
    weights = []
    while (message := alone.next()) is not None:
        weights.append(sum(one.weight for one in message.entries))
        answer = LabelStatus(message.epoch, message.sequence, Status.ACCEPTED)
        alone.exchange.on_response(answer.encode(), NOW)
    assert max(weights) <= 2 and len(weights) >= 3


@pytest.mark.parametrize(("may_fragment", "most_octets"), [(False, 1200), (True, 4096)])
def test_messages_are_longer_where_ike_fragments_them(may_fragment: bool, most_octets: int) -> None:
    config = configuration(1)
    many = tuple(ip_network(f"10.1.{third}.{fourth}/32") for third in range(4) for fourth in range(200))
    config = replace(config, vrfs=tuple(replace(vrf, announce=many) for vrf in config.vrfs))
    alone = Alone(config=config, may_fragment=may_fragment)
    octets = alone.child("blue/0").exchange.next_message()
    assert octets is not None
    assert 0.8 * most_octets < len(octets) + 104 <= most_octets


@pytest.mark.parametrize("settings", ["", "fragmentation = false"])
def test_the_node_knows_whether_ike_fragments(settings: str) -> None:
    nodes = NodePair(configuration(1, 'start = "boot"'), configuration(2, settings)).start()
    nodes.run()
    for end in (nodes.pe1, nodes.pe2):
        (established,) = end.of(IkeSaEstablished)
        assert established.may_fragment is (settings == "")


def test_a_peer_whose_table_is_full_is_told_about_once_and_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    alone = Alone().child("red/gold", "blue/0")
    alone.answer(Status.TABLE_FULL)
    assert alone.next() is None
    assert caplog.text.count("takes no more label bindings") == 1


@pytest.mark.parametrize(("limit", "value"), [("BINDINGS_PER_MESSAGE", 3), ("MAX_BINDINGS", 3)])
def test_more_than_we_said_that_we_take_is_refused_as_a_whole(
    limit: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, limit, value)
    alone = Alone().child("red/gold")
    three = ("10.2.0.0/24", "10.2.1.0/24", "10.2.2.0/24")
    assert alone.receive(entry(500, *three)).status is Status.TABLE_FULL
    assert not list(alone.table.routes()) and alone.changes == []
    assert alone.receive(entry(500, *three[:2]), sequence=2).status is Status.ACCEPTED


@pytest.mark.parametrize("octets", [b"", b"\xff", b"\xa0", bytes(4097), b"\x9f" * 100, b"\xa4\x00\x01"])
def test_what_cannot_be_read_changes_nothing(octets: bytes) -> None:
    alone = Alone().child("red/gold")
    alone.receive(entry(500, "10.2.0.0/24"))
    before = list(alone.table.routes())
    assert alone.exchange.receive_binding(octets) is None
    assert alone.exchange.receiver.malformed == 1
    assert list(alone.table.routes()) == before


# --- what is taken


def test_a_binding_makes_routes_and_a_withdraw_takes_them() -> None:
    alone = Alone().child("red/gold")
    assert alone.receive(entry(500, "10.2.0.0/24", "10.2.1.0/24")).status is Status.ACCEPTED
    assert {(str(route.prefix), route.label) for _, _, route in alone.table.routes()} == {
        ("10.2.0.0/24", 500),
        ("10.2.1.0/24", 500),
    }
    alone.receive(entry(500, "10.2.0.0/24"), sequence=2, operation=Operation.WITHDRAW)
    assert {str(route.prefix) for _, _, route in alone.table.routes()} == {"10.2.1.0/24"}
    kinds = [type(change) for change in alone.changes]
    assert kinds == [RouteAdded, RouteAdded, RouteRemoved]


def test_a_binding_for_a_class_without_a_child_is_refused() -> None:
    alone = Alone().child("blue/0")
    status = alone.receive(entry(500, "10.2.0.0/24"))
    assert status.refused == ((500, Refusal.POLICY),)
    assert not list(alone.table.routes())


def test_only_the_prefixes_that_accept_allows_make_routes() -> None:
    alone = Alone().child("red/gold")
    status = alone.receive(entry(500, "10.2.0.0/24"), entry(501, "10.3.0.0/24"), entry(502, "10.0.0.0/8"))
    assert status.refused == ((501, Refusal.PREFIX), (502, Refusal.PREFIX))
    assert {route.label for _, _, route in alone.table.routes()} == {500}


def test_a_label_of_one_class_cannot_be_bound_to_another() -> None:
    alone = Alone().child("red/gold", "red/standard")
    alone.receive(entry(500, "10.2.0.0/24"))
    selector = alone.children["red/standard"].outbound_selector
    assert selector is not None
    other = LabelBinding(9, 2, Operation.ADD, selector.vrf, "standard", (entry(500, "10.2.0.0/24"),))
    answer = alone.exchange.receive_binding(other.encode())
    assert answer is not None
    assert LabelStatus.parse(answer).refused == ((500, Refusal.DUPLICATE),)
    assert {cls for _, cls, _ in alone.table.routes()} == {"gold"}


# --- the end


def test_the_end_of_the_session_quarantines_what_was_given_and_forgets_what_was_taken() -> None:
    alone = Alone().child("red/gold", "blue/0")
    alone.answer(Status.ACCEPTED)
    alone.receive(entry(500, "10.2.0.0/24"))
    given = [label for *_, label in alone.exchange.labels_given()]
    alone.changes.clear()
    alone.exchange.close(NOW)
    assert [alone.state(label) for label in given] == [LabelState.QUARANTINED] * 2, "answered or not"
    assert alone.exchange.labels_given() == [] and not list(alone.table.routes())
    assert [type(change) for change in alone.changes] == [RouteRemoved]


def test_another_sessions_labels_outlive_the_end_of_this_one() -> None:
    alone = Alone().child("red/gold")
    others = alone.space.allocate("pe2", "red", "gold", 3, session=8)
    alone.exchange.close(NOW)
    assert alone.state(others) is LabelState.ACTIVE


def test_a_session_that_ends_between_nodes_leaves_no_label_accepted_and_no_route() -> None:
    nodes = up()
    given = {end: exchange_of(nodes.ends[end]).labels_given() for end in (1, 2)}
    nodes.pe1.node.terminate("pe2", None, nodes.now)
    nodes.run()
    for number, labels in given.items():
        node = nodes.ends[number].node
        assert not node.labels and not list(node.table.routes())
        for *_, label in labels:
            owner = node.space.lookup(label)
            assert owner is not None and owner.state is LabelState.QUARANTINED
    nodes.run(121)
    assert [nodes.pe1.node.space.lookup(label) for *_, label in given[1]] == [None] * 3, "and then it is free"


def test_a_new_session_never_gets_a_label_that_is_in_quarantine() -> None:
    nodes = up()
    before = {label for *_, label in exchange_of(nodes.pe1).labels_given()}
    nodes.pe1.node.terminate("pe2", None, nodes.now)
    nodes.run()
    nodes.pe1.node.initiate("pe2", None, nodes.now)
    nodes.run(10)
    after = {label for *_, label in exchange_of(nodes.pe1).labels_given()}
    assert len(after) == 3 and not after & before


def test_bindings_outlive_their_last_child_for_a_while_and_no_longer() -> None:
    alone = Alone().child("red/gold")
    alone.answer(Status.ACCEPTED)
    alone.receive(entry(500, "10.2.0.0/24"))
    ((*_, label),) = alone.exchange.labels_given()
    alone.exchange.on_last_child_closed("red", "gold", NOW)
    assert alone.exchange.next_deadline() == NOW + KEEP_WITHOUT_CHILD_S
    alone.exchange.expire(NOW + KEEP_WITHOUT_CHILD_S - 0.001)
    assert alone.state(label) is LabelState.ACTIVE and list(alone.table.routes())
    alone.exchange.expire(NOW + KEEP_WITHOUT_CHILD_S)
    assert alone.state(label) is LabelState.QUARANTINED and not list(alone.table.routes())
    assert alone.exchange.labels_given() == [] and alone.exchange.next_deadline() is None


def test_a_child_that_comes_back_in_time_keeps_the_label_and_after_it_gets_another() -> None:
    for wait, same in ((KEEP_WITHOUT_CHILD_S - 1, True), (KEEP_WITHOUT_CHILD_S, False)):
        alone = Alone().child("red/gold")
        alone.answer(Status.ACCEPTED)
        before = alone.exchange.labels_given()
        alone.exchange.on_last_child_closed("red", "gold", NOW)
        alone.exchange.expire(NOW + wait)
        alone.child("red/gold")
        after = alone.exchange.labels_given()
        assert len(after) == 1 and (after == before) is same


@pytest.mark.parametrize("answer", [None, b"", b"\xff"])
def test_an_answer_that_is_none_ends_the_bindings_and_is_told(
    answer: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    alone = Alone().child("red/gold", "blue/0")
    assert alone.next() is not None
    alone.exchange.on_response(answer, NOW)
    assert alone.next() is None
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and "label bindings end for this session" in record.getMessage()
    alone.child("red/standard")
    assert alone.next() is None, "nor for what comes later"


def test_an_answer_nobody_waits_for_changes_nothing() -> None:
    alone = Alone().child("red/gold")
    alone.answer(Status.ACCEPTED)
    alone.exchange.on_response(None, NOW)
    alone.child("blue/0")
    assert alone.next() is not None
