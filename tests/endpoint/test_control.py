"""endpoint/control.py: requests, refusals, bounds, and who may use the socket."""

import asyncio
import contextlib
import json
import socket
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint import control
from endpoint.control import ControlError, ControlServer, call
from endpoint.errors import SetupError

Call = Callable[..., Awaitable[dict[str, Any]]]


async def handler(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if command == "refuse":
        raise ControlError("no such peer: pe9")
    if command == "break":
        raise ZeroDivisionError("by zero")
    if command == "hang":
        await asyncio.Event().wait()
    if command == "long":
        return {"text": "x" * 1_000_000}
    return {"command": command, "arguments": arguments}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ControlServer]:
    opened = await ControlServer.open(tmp_path / "run" / "control.sock", handler)
    yield opened
    await opened.close()


async def ask(server: ControlServer, command: str, **arguments: Any) -> dict[str, Any]:
    return await asyncio.to_thread(call, server.path, command, arguments, 5)


async def raw_request(server: ControlServer, octets: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(server.path), limit=1 << 20)
    writer.write(octets)
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    decoded = json.loads(answer)
    assert isinstance(decoded, dict)
    return decoded


async def test_command_and_arguments_reach_the_handler(server: ControlServer) -> None:
    assert await ask(server, "rekey", peer="pe2", child=None) == {
        "command": "rekey",
        "arguments": {"peer": "pe2", "child": None},
    }


async def test_long_answer_arrives_whole(server: ControlServer) -> None:
    assert len((await ask(server, "long"))["text"]) == 1_000_000


async def test_socket_is_for_its_owner_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    server = await ControlServer.open(tmp_path / "control.sock", handler)
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    await server.close()
    assert not server.path.exists()


async def test_refusal_is_one_line_for_the_user(server: ControlServer) -> None:
    with pytest.raises(ControlError, match=r"^no such peer: pe9$"):
        await ask(server, "refuse")


async def test_handler_that_fails_is_reported_and_the_server_lives(server: ControlServer) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    with pytest.raises(ControlError, match="internal error: ZeroDivisionError"):
        await ask(server, "break")
    assert [type(error) for error in reported] == [ZeroDivisionError]
    assert (await ask(server, "status"))["command"] == "status"


async def test_command_that_hangs_is_given_up(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "COMMAND_S", 0)
    with pytest.raises(ControlError, match="hang: not finished"):
        await ask(server, "hang")


async def test_silent_client_is_dropped(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0)
    reader, writer = await asyncio.open_unix_connection(str(server.path))
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "octets",
    [
        b"\n",
        b"{\n",
        b"[]\n",
        b"1\n",
        b'"status"\n',
        b"{}\n",
        b"\xff\xfe\n",
        b"null\n",
        b'[{"command": "status"}]\n',
        b"[" * 60_000 + b"\n",
    ],
)
async def test_malformed_request_gets_an_error(server: ControlServer, octets: bytes) -> None:
    assert "JSON object" in (await raw_request(server, octets))["error"]
    assert (await ask(server, "status"))["command"] == "status"


async def test_command_that_is_no_string_gets_an_error(server: ControlServer) -> None:
    assert "string" in (await raw_request(server, b'{"command": 1}\n'))["error"]


async def test_request_longer_than_the_bound_gets_an_error(server: ControlServer) -> None:
    octets = b'{"command": "' + b"x" * control.MAX_REQUEST_OCTETS + b'"}\n'
    assert "at most 65536 octets" in (await raw_request(server, octets))["error"]


async def test_several_requests_on_one_connection(server: ControlServer) -> None:
    reader, writer = await asyncio.open_unix_connection(str(server.path))
    for name in ("one", "two"):
        writer.write(b'{"command": "%s"}\n' % name.encode())
        assert json.loads(await reader.readline())["command"] == name
    writer.close()
    await writer.wait_closed()


async def test_ninth_client_is_refused_and_is_served_once_another_left(server: ControlServer) -> None:
    held = [await asyncio.open_unix_connection(str(server.path)) for _ in range(control.MAX_CLIENTS)]
    for reader, writer in held:
        writer.write(b'{"command": "status"}\n')
        await reader.readline()
    with pytest.raises(ControlError, match="more than 8 clients"):
        await ask(server, "status")
    for reader, writer in held:
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert (await ask(server, "status"))["command"] == "status"


async def test_close_drops_clients_that_wait(tmp_path: Path) -> None:
    server = await ControlServer.open(tmp_path / "control.sock", handler)
    reader, writer = await asyncio.open_unix_connection(str(server.path))
    writer.write(b'{"command": "status"}\n')
    await reader.readline()
    async with asyncio.timeout(5):
        await server.close()
    assert await reader.read() == b""
    writer.close()


async def test_second_server_is_refused_and_the_first_lives(server: ControlServer) -> None:
    with pytest.raises(SetupError, match="another mplsec listens there"):
        await ControlServer.open(server.path, handler)
    assert (await ask(server, "status"))["command"] == "status"


async def test_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = await ControlServer.open(path, handler)
    assert (await ask(server, "status"))["command"] == "status"
    await server.close()


async def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("do not delete")
    with pytest.raises(SetupError, match="not a socket"):
        await ControlServer.open(path, handler)
    assert path.read_text() == "do not delete"


async def test_socket_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    first = await ControlServer.open(path, handler)
    path.unlink()
    second = await ControlServer.open(path, handler)
    await first.close()
    assert (await ask(second, "status"))["command"] == "status"
    await second.close()


async def test_path_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="AF_UNIX path too long; choose another"):
        await ControlServer.open(tmp_path / ("x" * 120), handler)


@contextlib.contextmanager
def imposter(path: Path, answer: bytes | None) -> Iterator[None]:
    """Something that is not an mplsec: reads a line, answers this (None: nothing at all) and closes."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    done = threading.Event()

    def serve() -> None:
        client, _ = listening.accept()
        client.recv(1000)
        if answer is None:
            done.wait(5)
        else:
            client.sendall(answer)
        client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    done.set()
    thread.join()
    listening.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "ended before it answered"),
        (b'{"half": ', "ended before it answered"),
        (b"hello\n", "not JSON"),
        (b"\xff\n", "not JSON"),
        (b"[]\n", "not a JSON object"),
    ],
)
def test_answer_that_is_none_is_said(tmp_path: Path, answer: bytes, said: str) -> None:
    path = tmp_path / "control.sock"
    with imposter(path, answer), pytest.raises(ControlError, match=said):
        call(path, "status", {})


def test_no_answer_in_time_is_said(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with imposter(path, None), pytest.raises(ControlError, match=r"no answer from .* within 0.01 s"):
        call(path, "status", {}, 0.01)


def test_nobody_there_is_said_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"no mplsec runs at .*: start it with mplsec run"):
        call(tmp_path / "control.sock", "status", {})
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(ControlError, match="no mplsec runs at"):
        call(tmp_path / "dead.sock", "status", {})
