"""The command line as a user and a script meet it: exit codes, standard output, one clear line of error."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from endpoint.cli import main
from endpoint.config import PskAuthConfig, load_config
from endpoint.config.secret import parse_secret
from tests.endpoint.config_texts import COMPLETE, SECRET, edited

COMMANDS = ["demo", "run", "check", "status", "initiate", "terminate", "rekey", "genkey", "version"]
CONTROL = ["status", "initiate pe2", "initiate pe2 --child red/gold", "terminate pe2", "rekey pe2 --ike"]
Captured = pytest.CaptureFixture[str]


def configuration(folder: Path, text: str = COMPLETE, *, mode: int = 0o600) -> str:
    """The name of a configuration with its secret beside it."""
    path = folder / "pe1.toml"
    path.write_text(text)
    (folder / "pe2.psk").write_bytes(SECRET)
    (folder / "pe2.psk").chmod(mode)
    return str(path)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program, as a shell starts it."""
    command = [sys.executable, "-m", "endpoint", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def usage_error(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert isinstance(raised.value.code, int)
    return raised.value.code


# --- usage


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: Captured) -> None:
    assert usage_error(command, "--help") == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"usage: mplsec {command}") and said.err == ""


def test_help_names_every_command(capsys: Captured) -> None:
    assert usage_error("--help") == 0
    said = capsys.readouterr().out
    assert all(f"\n    {command}" in said for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["run"],
        ["check"],
        ["initiate"],
        ["terminate"],
        ["rekey"],
        ["status", "pe2"],
        ["initiate", "pe2", "--ike"],
        ["genkey", "512"],
        ["demo", "--nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_two(arguments: list[str], capsys: Captured) -> None:
    assert usage_error(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and "usage: mplsec" in said.err


def test_the_program_passes_the_exit_code_on() -> None:
    assert run("version").returncode == 0
    assert run("nonsense").returncode == 2
    assert run("check", "/nonexistent/pe1.toml").returncode == 2
    failed = run("status", "--control", "/nonexistent/control.sock")
    assert failed.returncode == 1
    assert failed.stdout == "" and "Traceback" not in failed.stderr


# --- check


def test_check_of_a_good_configuration_prints_map_and_budgets(tmp_path: Path, capsys: Captured) -> None:
    assert main(["check", configuration(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for part in ("protect as red/gold", "MTU budget toward pe2", "no errors"):
        assert part in said.out


def test_check_tells_all_errors_at_once_in_the_order_of_the_file(tmp_path: Path, capsys: Captured) -> None:
    text = edited(COMPLETE, '"192.0.2.1"', '"192.0.2.999"')
    text = edited(text, 'urpf    = "strict"', 'urpf    = "strikt"')
    text = edited(text, 'start     = "traffic"', "colour = 1")
    path = configuration(tmp_path, text)
    assert main(["check", path]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == "" and len(lines) == 3
    for line, key in zip(lines, ("addresses", "urpf", "colour"), strict=True):
        number = next(n for n, one in enumerate(text.splitlines(), 1) if one.strip().startswith(key))
        assert line.startswith(f"{path}:{number}: ")
        assert "; remedy: " in line


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_secret_that_the_group_can_read_is_refused(tmp_path: Path, command: str, capsys: Captured) -> None:
    path = configuration(tmp_path, mode=0o640)
    assert main([command, path]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    number = COMPLETE.splitlines().index('auth      = { psk_file = "pe2.psk" }') + 1
    assert line.startswith(f"{path}:{number}: peer.pe2.auth.psk_file: ")
    assert line.endswith(f"; remedy: chmod 600 {tmp_path}/pe2.psk")
    assert "abab" not in line


@pytest.mark.parametrize("content", [b"[endpoint", b"\xff", b"", b"[[peer]]\n" * 3])
def test_what_is_no_configuration_is_told_and_never_a_traceback(
    tmp_path: Path, content: bytes, capsys: Captured
) -> None:
    path = tmp_path / "pe1.toml"
    path.write_bytes(content)
    assert main(["check", str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"{path}:")


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_configuration_that_cannot_be_read_is_told(tmp_path: Path, name: str, capsys: Captured) -> None:
    assert main(["check", str(tmp_path / name)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be read" in line and "; remedy: " in line


# --- run


def test_run_says_in_one_line_what_the_system_refuses(tmp_path: Path, capsys: Captured) -> None:
    text = f"""
[endpoint]
identity  = "pe1.example"
addresses = ["192.0.2.77"]
ike_port  = 0
state_dir = "{tmp_path}"
[[vrf]]
name   = "red"
attach = [{{ memory = "red" }}]
"""
    path = configuration(tmp_path, text)
    assert main(["run", path, "--control", str(tmp_path / "control.sock")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("mplsec: ") and "192.0.2.77" in last
    assert not (tmp_path / "control.sock").exists()


# --- commands to a running endpoint


@pytest.mark.parametrize("words", CONTROL)
def test_without_a_running_endpoint_a_command_says_so(tmp_path: Path, words: str, capsys: Captured) -> None:
    path = tmp_path / "control.sock"
    assert main([*words.split(), "--control", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"mplsec: no mplsec runs at {path}: start it with mplsec run, or use --control\n"


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("status", {"command": "status"}),
        ("initiate pe2", {"command": "initiate", "peer": "pe2"}),
        ("terminate pe2 --child red/gold", {"command": "terminate", "peer": "pe2", "child": "red/gold"}),
        ("rekey pe2 --ike", {"command": "rekey", "peer": "pe2", "ike": True}),
        ("rekey pe2", {"command": "rekey", "peer": "pe2"}),
    ],
)
def test_a_command_asks_for_exactly_what_was_written(
    words: str, request_: dict[str, object], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def call(path: Path, command: str, arguments: dict[str, object]) -> dict[str, object]:
        asked.append({"command": command, **arguments})
        return {"text": "one line for the user", "count": 1}

    monkeypatch.setattr("endpoint.cli.call", call)
    assert main([*words.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"text": "one line for the user", "count": 1}
    if not words.startswith("status"):
        assert main(words.split()) == 0
        assert capsys.readouterr().out == "one line for the user\n"
    assert asked[0] == request_


# --- genkey, version


def test_genkey_prints_256_bits_that_the_configuration_reads(tmp_path: Path, capsys: Captured) -> None:
    assert main(["genkey"]) == 0
    written = capsys.readouterr().out
    psk, is_weak = parse_secret(written.encode())
    assert len(psk) == 32 and not is_weak
    assert written == f"0x{psk.hex()}\n"
    path = configuration(tmp_path)
    (tmp_path / "pe2.psk").write_text(written)
    config = load_config(Path(path))
    assert config.peers[0].auth == PskAuthConfig(psk)
    assert not [warning for warning in config.warnings if "psk_file" in warning.key]


def test_genkey_never_prints_a_key_twice(capsys: Captured) -> None:
    keys = set()
    for _ in range(16):
        main(["genkey"])
        keys.add(capsys.readouterr().out)
    assert len(keys) == 16


def test_version_is_that_of_the_package(capsys: Captured) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"mplsec {version('mplsec')}\n"
