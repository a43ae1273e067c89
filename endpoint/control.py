"""The control socket: JSON objects, one a line, request and response, on a Unix socket for its owner.

Must not know: what the commands do. A request is {"command": …, arguments …}; a response is the handler's
object, or {"error": one line}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from endpoint.errors import SetupError

__all__ = ["DEFAULT_SOCKET", "ControlError", "ControlServer", "Handler", "call"]

Handler: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[Mapping[str, Any]]]

DEFAULT_SOCKET = Path("/run/mplsec/control.sock")
MAX_CLIENTS = 8
MAX_REQUEST_OCTETS = 64 * 1024
MAX_RESPONSE_OCTETS = 16 * 1024 * 1024
IDLE_S = 60.0
COMMAND_S = 30.0


class ControlError(Exception):
    """A command was refused, by the other side or on the way there; the text is one line for the user."""


class ControlServer:
    """Serves the control socket until `close`."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self.path = path
        self._handler = handler
        self._server: asyncio.Server
        self._inode = 0
        self._clients: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, path: Path, handler: Handler) -> ControlServer:
        """Listen at `path` (mode 0600), replacing what a dead process left. SetupError with the remedy."""
        opened = cls(path, handler)
        listening, opened._inode = _listening_socket(path)
        try:
            opened._server = await asyncio.start_unix_server(
                opened._serve, sock=listening, limit=MAX_REQUEST_OCTETS
            )
        except BaseException:
            listening.close()
            raise
        return opened

    async def close(self) -> None:
        """Stop, drop the clients and remove the socket's file."""
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._clients) >= MAX_CLIENTS:
            await _answer(writer, {"error": f"more than {MAX_CLIENTS} clients at once"})
            writer.close()
            return
        self._clients.add(task)
        try:
            while line := await _next_line(reader):
                await _answer(writer, await self._respond(line))
        except ValueError:
            await _answer(writer, {"error": f"a request has at most {MAX_REQUEST_OCTETS} octets"})
        except (TimeoutError, ConnectionError):
            pass  # The client has gone, or says nothing any more.
        finally:
            self._clients.discard(task)
            writer.close()

    async def _respond(self, line: bytes) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
            command = request.pop("command")
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            return {"error": 'a request is one JSON object with the key "command"'}
        if not isinstance(command, str):
            return {"error": 'the value of "command" is a string'}
        try:
            async with asyncio.timeout(COMMAND_S):
                return await self._handler(command, request)
        except ControlError as error:
            return {"error": str(error)}
        except TimeoutError:
            return {"error": f"{command}: not finished after {COMMAND_S:g} s"}
        except Exception as error:
            context = {"message": f"control command {command} failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            return {"error": f"{command}: internal error: {type(error).__name__}: {error}"}


def call(
    path: Path, command: str, arguments: Mapping[str, Any], timeout_s: float = COMMAND_S + 5
) -> dict[str, Any]:
    """The response of the mplsec that listens at `path`. ControlError if there is none, or if it refuses."""
    deadline = time.monotonic() + timeout_s
    request = json.dumps({**arguments, "command": command}).encode() + b"\n"
    received = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            client.connect(str(path))
            # Who is refused at once may be gone before we have asked; the answer is there all the same.
            with contextlib.suppress(BrokenPipeError):
                client.sendall(request)
            while not received.endswith(b"\n"):
                client.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = client.recv(65536)
                if not chunk:
                    raise ControlError(f"the mplsec at {path} ended before it answered")
                received += chunk
                if len(received) > MAX_RESPONSE_OCTETS:
                    raise ControlError(f"the answer from {path} is longer than {MAX_RESPONSE_OCTETS} octets")
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ControlError(f"no mplsec runs at {path}: start it with mplsec run, or use --control") from error
    except PermissionError as error:
        raise ControlError(f"{path} belongs to another user: run this as the user who runs mplsec") from error
    except TimeoutError as error:
        raise ControlError(f"no answer from {path} within {timeout_s:g} s") from error
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror or error}") from error
    try:
        response = json.loads(received)
    except ValueError as error:
        raise ControlError(f"the answer from {path} is not JSON: is it an mplsec?") from error
    if not isinstance(response, dict):
        raise ControlError(f"the answer from {path} is not a JSON object: is it an mplsec?")
    if "error" in response:
        raise ControlError(str(response["error"]))
    return response


def _listening_socket(path: Path) -> tuple[socket.socket, int]:
    """A socket that listens at `path`, and the inode of its file."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        listening.bind(str(path))
        # Before listen() nobody can connect, so there is no moment with other rights.
        path.chmod(0o600)
        listening.listen(MAX_CLIENTS)
        return listening, path.stat().st_ino
    except OSError as error:
        listening.close()
        raise SetupError(
            f"control socket {path}: {error.strerror or error}; choose another: --control"
        ) from error
    except SetupError:
        listening.close()
        raise


def _remove_stale(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise SetupError(f"control socket {path}: there is a file of that name that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            pass
    raise SetupError(f"control socket {path}: another mplsec listens there; choose another: --control")


async def _next_line(reader: asyncio.StreamReader) -> bytes:
    # Not wait_for: that of Python 3.11 can swallow the cancellation by which close() ends us.
    async with asyncio.timeout(IDLE_S):
        return await reader.readline()


async def _answer(writer: asyncio.StreamWriter, response: Mapping[str, Any]) -> None:
    writer.write(json.dumps(response).encode() + b"\n")
    async with asyncio.timeout(IDLE_S):
        await writer.drain()
