"""`mplsec peer SCRIPT CONFIG`: one short script as IKE peer, right or wrong, against any gateway.

Must not know IKE messages: `ike.testing.scripted` builds them, this gives it a socket and a voice. Datagrams go
to the one address of the configured peer and are taken from that address alone.
"""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path as FilePath
from typing import cast

from endpoint.config import Config, PeerConfig
from endpoint.errors import SetupError
from endpoint.plan import plan_peers
from endpoint.sockets import Address
from endpoint.udp import IkeSocket
from esp.demux import NON_ESP_MARKER
from ike import Path, SystemEntropy
from ike.errors import IkeError, LocalError
from ike.testing import scripts
from ike.testing.scripted import ScriptedPeer, Step

__all__ = ["PeerScript", "ScriptFileError", "load_script", "run_peer", "shipped_scripts"]

WAITING_DATAGRAMS = 256
TIME_LIMIT_S = 300.0

ScriptFunction = Callable[[ScriptedPeer], Awaitable[str]]


class ScriptFileError(ValueError):
    """The script, or what it is to be run with, cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class PeerScript:
    """A script: its name, the first line of its docstring, and what it does."""

    name: str
    title: str
    run: ScriptFunction


def shipped_scripts() -> dict[str, FilePath]:
    """Name -> file of the scripts that come with mplsec."""
    folder = FilePath(str(resources.files(scripts)))
    return {path.stem: path for path in sorted(folder.glob("[a-z]*.py"))}


def load_script(script: str) -> PeerScript:
    """A shipped one by name, or a file. It is run as Python code. Raises ScriptFileError."""
    shipped = shipped_scripts()
    path = shipped.get(script.replace("-", "_"), FilePath(script))
    if not path.is_file():
        raise ScriptFileError(f"{script}: no such file, and none of {', '.join(shipped)}")
    try:
        names = runpy.run_path(str(path))
    except Exception as error:
        raise ScriptFileError(f"{path}: {type(error).__name__}: {error}") from error
    function = names.get("script")
    if not asyncio.iscoroutinefunction(function):
        raise ScriptFileError(f"{path}: has no `async def script(peer: ScriptedPeer) -> str`")
    title = str(names.get("__doc__") or path.stem).strip().splitlines()[0]
    return PeerScript(path.stem, title, cast(ScriptFunction, function))


def run_peer(script: PeerScript, config: Config, peer_name: str | None, *, as_json: bool) -> int:
    """Run the script and print the story, or one JSON document. 0 when it ended by itself and the gateway lives.

    Raises ScriptFileError, SetupError.
    """
    return asyncio.run(_run(script, _chosen_peer(config, peer_name), config, as_json))


def _chosen_peer(config: Config, name: str | None) -> PeerConfig:
    if name is None and len(config.peers) != 1:
        known = ", ".join(peer.name for peer in config.peers) or "none"
        raise ScriptFileError(f"{config.file}: which peer? Name one with --peer; there are {known}")
    peer = config.peer(name) if name is not None else config.peers[0]
    if peer is None:
        raise ScriptFileError(f"{config.file}: there is no peer {name!r}")
    if peer.is_any:
        raise ScriptFileError(
            f'{config.file}: peer {peer.name} has the address "any"; a script needs one to send to'
        )
    return peer


async def _run(script: PeerScript, peer: PeerConfig, config: Config, as_json: bool) -> int:
    (plan,) = (plan for plan in plan_peers(config) if plan.peer.name == peer.name)
    wire = await UdpWire.open(config, peer)
    steps: list[Step] = []

    def on_step(step: Step) -> None:
        steps.append(step)
        if not as_json:
            print(step, flush=True)

    if not as_json:
        print(f"{script.title}\n{wire.path}")
    answered, problem, serves_after = None, None, None
    try:
        scripted = ScriptedPeer(plan.connection, wire, entropy=SystemEntropy(), on_step=on_step)
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                answered = await script.run(scripted)
                await scripted.close()
        except (IkeError, TimeoutError) as error:
            problem = str(error) or f"the script did not end within {TIME_LIMIT_S:.0f} s"
        serves_after = await scripted.serves_after()
    except LocalError as error:
        raise ScriptFileError(f"{config.file}: peer {peer.name}: {error}") from error
    finally:
        await wire.close()
    if as_json:
        document = {
            "script": script.name,
            "title": script.title,
            "gateway": peer.name,
            "answered": answered,
            "problem": problem,
            "serves_after_s": serves_after,
            "steps": [str(step) for step in steps],
        }
        print(json.dumps(document, indent=2))
    else:
        print(f"answered      {answered if problem is None else f'the script ended early: {problem}'}")
        print(f"still serves  {_serves_text(serves_after)}")
    return 0 if problem is None and serves_after is not None else 1


def _serves_text(after_s: float | None) -> str:
    if after_s is None:
        return "NO: a new IKE_SA_INIT is not answered"
    return "yes" if after_s == 0 else f"yes, after {after_s:.0f} s"


class UdpWire:
    """Datagrams between one local address and one gateway, whatever port it answers from."""

    def __init__(self, path: Path, marker: bytes) -> None:
        self._path = path
        self._marker = marker
        self._received: asyncio.Queue[bytes] = asyncio.Queue(WAITING_DATAGRAMS)
        self._socket: IkeSocket

    @classmethod
    async def open(cls, config: Config, peer: PeerConfig) -> UdpWire:
        """On the port that the configuration begins IKE from. SetupError with the remedy."""
        endpoint, gateway = config.endpoint, peer.addresses[0]
        local = next((one for one in endpoint.addresses if (":" in one) == (":" in gateway)), None)
        if local is None:
            raise SetupError(f"no address of [endpoint] is of the family of {gateway}")
        on_nat_port = config.starts_on_nat_port(peer)
        port = endpoint.nat_port if on_nat_port else endpoint.ike_port
        wire = cls(Path((local, port), (gateway, peer.port)), NON_ESP_MARKER if on_nat_port else b"")
        wire._socket = await IkeSocket.open(
            local, port, on_datagram=wire._on_datagram, front_door=endpoint.front_door
        )
        return wire

    @property
    def path(self) -> Path:
        return self._path

    def _on_datagram(self, data: bytes, local: Address, peer: Address) -> None:
        is_ours = peer[0] == self._path.peer[0] and data.startswith(self._marker)
        if is_ours and not self._received.full():
            self._received.put_nowait(data[len(self._marker) :])

    async def send(self, data: bytes) -> None:
        self._socket.send(self._marker + data, self._path.peer)

    async def receive(self, seconds: float) -> bytes | None:
        try:
            return await asyncio.wait_for(self._received.get(), seconds)
        except TimeoutError:
            return None

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    async def close(self) -> None:
        await self._socket.close()
