"""`mplsec peer`: a script over real UDP against a gateway, and what it says about scripts that cannot be run."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest

from endpoint.cli import main
from ike import Connection, Identity, IkeEngine, Path, PskAuth, SystemEntropy, parse_ike_proposal

CONFIG = """
[endpoint]
identity  = "script.example"
addresses = ["127.0.0.1"]
ike_port  = {own}
nat_port  = {nat}

[[vrf]]
name     = "red"
attach   = [{{ memory = "red" }}]
announce = ["10.1.0.0/24"]

[[peer]]
name      = "gateway"
identity  = "gateway.example"
addresses = ["{address}"]
port      = {port}
auth      = {{ psk_file = "secret" }}
ike       = ["aes256gcm16-prfsha384-x25519"]
esp       = ["aes256gcm16"]
selectors = "plain"

  [[peer.vrf]]
  name   = "red"
  accept = ["10.2.0.0/24"]
  labels = {{ local = 101, peer = 102, routes = ["10.2.0.0/24"] }}
"""
SECRET = b"both ends know this secret of theirs"


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Gateway:
    """Our engine behind a socket on the loopback, in a thread of its own."""

    def __init__(self) -> None:
        connection = Connection(
            "script",
            Identity.fqdn("gateway.example"),
            Identity.fqdn("script.example"),
            PskAuth(SECRET),
            (parse_ike_proposal("aes256gcm16-prfsha384-x25519"),),
        )
        self._engine = IkeEngine([connection], entropy=SystemEntropy())
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port = int(self._socket.getsockname()[1])
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ends.is_set():
            try:
                data, peer = self._socket.recvfrom(65535)
            except TimeoutError:
                continue
            now = time.monotonic()
            self._engine.receive_datagram(data, Path(("127.0.0.1", self.port), peer), now)
            for datagram in self._engine.datagrams_to_send(now):
                self._socket.sendto(datagram.data, datagram.path.peer)

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()
        self._socket.close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.stop()


def config(folder: FilePath, port: int, address: str = "127.0.0.1") -> str:
    secret = folder / "secret"
    secret.write_text(SECRET.decode())
    secret.chmod(0o600)
    path = folder / "peer.toml"
    path.write_text(CONFIG.format(own=free_port(), nat=free_port(), port=port, address=address))
    return str(path)


def test_a_shipped_script_tells_how_the_gateway_took_it(
    tmp_path: FilePath, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["peer", "wrong-auth", config(tmp_path, gateway.port), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answered"] == "N(AUTHENTICATION_FAILED)"
    assert told["serves_after_s"] == 0
    assert told["steps"][0].startswith("--> IKE_SA_INIT request 0")
    assert SECRET.decode() not in json.dumps(told)


def test_ones_own_script_is_a_file_with_one_function(
    tmp_path: FilePath, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "mine.py"
    script.write_text('"""Mine."""\nasync def script(peer):\n    await peer.init()\n    return "I saw it"\n')
    assert main(["peer", str(script), config(tmp_path, gateway.port)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "Mine."
    assert "answered      I saw it" in out
    assert "still serves  yes" in out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def script(peer): pass", "has no `async def script"),
        ("this is no Python", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_script_that_cannot_be_run_is_exit_2_with_the_reason(
    tmp_path: FilePath, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    script = tmp_path / "bad.py"
    script.write_text(text)
    assert main(["peer", str(script), config(tmp_path, 500)]) == 2
    assert complaint in capsys.readouterr().err


def test_an_unknown_script_is_answered_with_those_that_there_are(
    tmp_path: FilePath, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["peer", "nonsense", config(tmp_path, 500)]) == 2
    assert "wrong_auth" in capsys.readouterr().err


def test_a_peer_without_an_address_cannot_be_a_target(
    tmp_path: FilePath, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["peer", "wrong_auth", config(tmp_path, 500, address="any")]) == 2
    assert "needs one to send to" in capsys.readouterr().err


def test_the_list_of_scripts_needs_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["peer", "--list"])
    assert ended.value.code == 0
    assert "half_open_flood" in capsys.readouterr().out
