"""The commands of the control socket against two running endpoints on loopback addresses, without privileges."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from endpoint import run
from endpoint.config import Config, parse_config
from endpoint.control import ControlError, ControlServer, call
from endpoint.run import Service
from endpoint.runtime import Runtime

CONFIG = """
[endpoint]
identity  = "pe{own}.example"
addresses = ["{own_address}"]
ike_port  = 0
nat_port  = 14500

[[vrf]]
name     = "red"
classes  = ["gold", "standard"]
attach   = [{{ memory = "red", address = ["10.{own}.0.1/24"] }}]
announce = ["10.{own}.0.0/24"]

[[class]]
name = "gold"
dscp = ["ef"]

[[peer]]
name      = "pe{other}"
identity  = "pe{other}.example"
addresses = ["{other_address}"]
port      = 14500
auth      = {{ psk_file = "psk" }}
udp       = "always"
start     = "none"

  [[peer.vrf]]
  name   = "red"
  accept = ["10.{other}.0.0/16"]
"""
CHILDREN = ["red/gold", "red/standard"]
_numbers = count(1)


def configurations(
    psk1: bytes = b"the same secret here", psk2: bytes = b"the same secret here"
) -> list[Config]:
    """Of pe1 and pe2, at loopback addresses that no other test and no other process uses."""
    process, number = os.getpid(), next(_numbers) * 2
    address = {own: f"127.{1 + process % 250}.{process // 250 % 250}.{number + own}" for own in (1, 2)}
    return [
        parse_config(
            CONFIG.format(own=own, other=3 - own, own_address=address[own], other_address=address[3 - own]),
            f"pe{own}.toml",
            secrets={"psk": psk},
        )
        for own, psk in ((1, psk1), (2, psk2))
    ]


async def opened(stack: AsyncExitStack, config: Config, folder: Path) -> Service:
    service = Service(replace(config, endpoint=replace(config.endpoint, state_dir=folder)))
    stack.push_async_callback(service.close)
    await service.open(None, None)
    return service


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Service, Service]]:
    """Two endpoints that start nothing by themselves."""
    async with AsyncExitStack() as stack:
        one, other = configurations()
        yield await opened(stack, one, tmp_path / "1"), await opened(stack, other, tmp_path / "2")


Pair = tuple[Service, Service]


def runtime_of(service: Service) -> Runtime:
    assert service.runtime is not None
    return service.runtime


async def until(service: Service, holds: Callable[[], bool]) -> None:
    assert await runtime_of(service).wait_until(holds, 10), "it never came to be"


def children_of(service: Service) -> dict[str, bytes]:
    """Names of the children in use, with their inbound SPIs."""
    children = runtime_of(service).node.children
    return {one.kind.name: one.sa.spi_in for one in children if one.retires_at is None}


async def refused(service: Service, command: str, **arguments: Any) -> str:
    with pytest.raises(ControlError) as raised:
        await service.handle(command, arguments)
    return str(raised.value)


# --- initiate


async def test_initiate_brings_up_every_child_and_names_them(pair: Pair) -> None:
    one, other = pair
    answer = await one.handle("initiate", {"peer": "pe2"})
    assert answer == {
        "peer": "pe2",
        "child": None,
        "count": 2,
        "text": "pe2 is up: red/gold, red/standard",
    }
    assert sorted(children_of(one)) == CHILDREN
    await until(other, lambda: sorted(children_of(other)) == CHILDREN)


async def test_initiate_of_one_child_brings_up_that_one(pair: Pair) -> None:
    answer = await pair[0].handle("initiate", {"peer": "pe2", "child": "red/gold"})
    assert (answer["child"], answer["text"]) == ("red/gold", "pe2 is up: red/gold")
    assert list(children_of(pair[0])) == ["red/gold"]


async def test_initiate_of_what_is_up_is_done_at_once(pair: Pair) -> None:
    await pair[0].handle("initiate", {"peer": "pe2"})
    before = children_of(pair[0])
    assert (await pair[0].handle("initiate", {"peer": "pe2"}))["count"] == 2
    assert children_of(pair[0]) == before


async def test_two_users_who_initiate_at_once_are_both_answered(pair: Pair) -> None:
    answers = await asyncio.gather(*(pair[0].handle("initiate", {"peer": "pe2"}) for _ in range(3)))
    assert [answer["count"] for answer in answers] == [2, 2, 2]
    assert len(runtime_of(pair[0]).node.engine.sessions()) == 1


async def test_initiate_with_a_wrong_secret_says_so_with_the_remedy(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        first, second = configurations(psk2=b"quite another secret")
        one = await opened(stack, first, tmp_path / "1")
        await opened(stack, second, tmp_path / "2")
        text = await refused(one, "initiate", peer="pe2")
        assert text.startswith("peer pe2: no IKE SA: AUTHENTICATION_FAILED") and "psk_file" in text
        assert "\n" not in text


async def test_initiate_toward_nobody_ends_with_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "INITIATE_S", 0.0)
    async with AsyncExitStack() as stack:
        one = await opened(stack, configurations()[0], tmp_path)
        assert await refused(one, "initiate", peer="pe2") == "peer pe2: not up within 0 s"


@pytest.mark.parametrize("arguments", [{"peer": "pe2"}, {"peer": "pe9"}, {"peer": "pe2", "child": "green/0"}])
async def test_whoever_initiated_watches_no_longer_when_it_is_over(
    pair: Pair, arguments: dict[str, str]
) -> None:
    try:
        await pair[0].handle("initiate", arguments)
    except ControlError as error:
        assert arguments != {"peer": "pe2"}, error
    assert runtime_of(pair[0]).node.watchers == []


async def test_a_user_who_goes_away_leaves_the_attempt_and_no_watcher(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        one = await opened(stack, configurations()[0], tmp_path)
        task = asyncio.ensure_future(one.handle("initiate", {"peer": "pe2"}))
        await until(one, lambda: bool(runtime_of(one).node.engine.sessions()))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert runtime_of(one).node.watchers == []
        assert runtime_of(one).node.engine.sessions()


# --- terminate


async def test_terminate_ends_the_session_on_both_ends(pair: Pair) -> None:
    one, other = pair
    await one.handle("initiate", {"peer": "pe2"})
    answer = await one.handle("terminate", {"peer": "pe2"})
    assert answer == {"peer": "pe2", "child": None, "count": 1, "text": "1 IKE SAs of pe2 are being deleted"}
    await until(one, lambda: not runtime_of(one).node.engine.sessions())
    await until(other, lambda: not runtime_of(other).node.engine.sessions())
    assert children_of(one) == children_of(other) == {}


async def test_terminate_of_one_child_leaves_the_others(pair: Pair) -> None:
    one, other = pair
    await one.handle("initiate", {"peer": "pe2"})
    answer = await one.handle("terminate", {"peer": "pe2", "child": "red/gold"})
    assert (answer["count"], answer["text"]) == (1, "1 children of pe2 are being deleted")
    await until(one, lambda: list(children_of(one)) == ["red/standard"])
    await until(other, lambda: list(children_of(other)) == ["red/standard"])
    assert runtime_of(one).node.engine.sessions()


async def test_the_end_that_answered_may_terminate_as_well(pair: Pair) -> None:
    one, other = pair
    await one.handle("initiate", {"peer": "pe2"})
    await other.handle("terminate", {"peer": "pe1"})
    await until(one, lambda: not runtime_of(one).node.engine.sessions())


@pytest.mark.parametrize("command", ["terminate", "rekey"])
async def test_where_nothing_is_up_there_is_nothing_to_do(pair: Pair, command: str) -> None:
    assert await refused(pair[0], command, peer="pe2") == f"peer pe2 has nothing to {command}"
    assert (
        await refused(pair[0], command, peer="pe2", child="red/gold") == f"peer pe2 has nothing to {command}"
    )
    assert await refused(pair[0], "rekey", peer="pe2", ike=True) == "peer pe2 has nothing to rekey"


# --- rekey


async def test_rekey_replaces_every_child(pair: Pair) -> None:
    one, _ = pair
    await one.handle("initiate", {"peer": "pe2"})
    before = children_of(one)
    answer = await one.handle("rekey", {"peer": "pe2"})
    assert (answer["count"], answer["text"]) == (2, "2 SAs of pe2 are being rekeyed")
    await until(one, lambda: not set(children_of(one).values()) & set(before.values()))
    assert sorted(children_of(one)) == CHILDREN


async def test_rekey_of_one_child_leaves_the_others_as_they_are(pair: Pair) -> None:
    one, _ = pair
    await one.handle("initiate", {"peer": "pe2"})
    before = children_of(one)
    assert (await one.handle("rekey", {"peer": "pe2", "child": "red/gold"}))["count"] == 1
    await until(one, lambda: children_of(one)["red/gold"] != before["red/gold"])
    assert children_of(one)["red/standard"] == before["red/standard"]


async def test_rekey_of_the_ike_sa_keeps_the_children(pair: Pair) -> None:
    one, _ = pair
    await one.handle("initiate", {"peer": "pe2"})
    node = runtime_of(one).node
    (before,), children = node.engine.sessions(), children_of(one)
    assert (await one.handle("rekey", {"peer": "pe2", "ike": True}))["count"] == 1

    def is_rekeyed() -> bool:
        return [session.spi_i for session in node.engine.sessions()] not in ([], [before.spi_i])

    await until(one, is_rekeyed)
    assert children_of(one) == children


async def test_reauthentication_is_begun_by_the_end_that_opened(pair: Pair) -> None:
    one, other = pair
    await one.handle("initiate", {"peer": "pe2"})
    assert (await one.handle("rekey", {"peer": "pe2", "reauth": True}))["count"] == 1
    await until(one, lambda: len(runtime_of(one).node.engine.sessions()) == 2)
    assert "the other end has opened this session" in await refused(other, "rekey", peer="pe1", reauth=True)


# --- names and types


@pytest.mark.parametrize("command", ["initiate", "terminate", "rekey"])
async def test_names_that_are_not_there_are_answered_with_those_that_are(pair: Pair, command: str) -> None:
    assert await refused(pair[0], command, peer="pe9") == "no peer pe9; there are: pe2"
    text = await refused(pair[0], command, peer="pe2", child="green/0")
    assert text == "peer pe2 has no child green/0; there are: red/gold, red/standard"
    assert not runtime_of(pair[0]).node.engine.sessions()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"peer": None},
        {"peer": 2},
        {"peer": ["pe2"]},
        {"peer": "pe2", "child": 1},
        {"peer": "pe2", "child": []},
    ],
    ids=str,
)
@pytest.mark.parametrize("command", ["initiate", "terminate", "rekey"])
async def test_what_is_no_name_is_refused(pair: Pair, command: str, arguments: dict[str, Any]) -> None:
    assert await refused(pair[0], command, **arguments) == "peer and child are names"


async def test_an_unknown_command_is_refused_by_its_name(pair: Pair) -> None:
    assert await refused(pair[0], "explode", peer="pe2") == "no command 'explode'"


# --- status, and the way through the socket


async def test_status_tells_what_the_commands_did(pair: Pair) -> None:
    one, _ = pair
    assert (await one.handle("status", {}))["peers"][0]["sessions"] == []
    await one.handle("initiate", {"peer": "pe2"})
    document = await one.handle("status", {})
    assert json.loads(json.dumps(document)) == document
    (peer,) = document["peers"]
    assert sorted(child["name"] for child in peer["children"]) == CHILDREN
    assert all(child["udp"] for child in peer["children"])
    assert peer["sessions"][0]["age_s"] >= 0.0
    assert "the same secret here" not in json.dumps(document)


async def test_a_ping_goes_through_what_initiate_brought_up(pair: Pair) -> None:
    one, _ = pair
    await one.handle("initiate", {"peer": "pe2"})
    host = one._hosts["red"]
    await until(one, lambda: len(list(runtime_of(one).node.table.routes())) == 2)
    host.ping("10.1.0.2", "10.2.0.2", identifier=1, sequence=1)
    await until(one, lambda: bool(host.pongs))
    document = await one.handle("status", {})
    assert document["counters"]["delivered"] == 1 and document["counters"]["drops"] == {}


async def test_the_same_answers_come_through_the_control_socket(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    server = await ControlServer.open(path, pair[0].handle)
    try:
        answer = await asyncio.to_thread(call, path, "initiate", {"peer": "pe2"})
        assert answer["text"] == "pe2 is up: red/gold, red/standard"
        status = await asyncio.to_thread(call, path, "status", {})
        assert status["identity"] == "pe1.example"
        with pytest.raises(ControlError, match="no peer pe9; there are: pe2"):
            await asyncio.to_thread(call, path, "rekey", {"peer": "pe9"})
    finally:
        await server.close()


async def test_after_the_goodbye_commands_are_refused_and_the_peer_has_heard_it(pair: Pair) -> None:
    one, other = pair
    await one.handle("initiate", {"peer": "pe2"})
    await one.shut_down()
    assert "shutting down" in await refused(one, "status")
    await until(other, lambda: not runtime_of(other).node.engine.sessions())


async def test_before_it_has_started_commands_are_refused() -> None:
    service = Service(configurations()[0])
    assert "starting" in await refused(service, "status")
