"""A secret comes from a file that only its owner may read; all else is refused, nothing is shown."""

import os
from pathlib import Path

import pytest

from endpoint.config import ConfigError, PskAuthConfig, load_config
from endpoint.config.problems import BadValue
from endpoint.config.secret import parse_secret
from tests.endpoint.config_texts import COMPLETE, SECRET


def configuration(folder: Path, content: bytes = SECRET, mode: int = 0o600) -> Path:
    """A configuration in `folder` and beside it the secret it names."""
    path = folder / "pe1.toml"
    path.write_text(COMPLETE)
    secret = folder / "pe2.psk"
    secret.write_bytes(content)
    secret.chmod(mode)
    return path


def problem_of(path: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    (problem,) = raised.value.problems
    assert (problem.line, problem.key) == (25, "peer.pe2.auth.psk_file")
    return f"{problem.message}; {problem.remedy}"


def test_secret_is_read_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = configuration(tmp_path)
    assert load_config(path).peers[0].auth == PskAuthConfig(bytes.fromhex("ab" * 32))
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("pe1.toml")).peers[0].auth == PskAuthConfig(bytes.fromhex("ab" * 32))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o660, 0o644, 0o610, 0o777])
def test_secret_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    told = problem_of(configuration(tmp_path, mode=mode))
    assert f"is open to others (mode {mode:04o})" in told
    assert f"chmod 600 {tmp_path}/pe2.psk" in told


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_secret_of_the_owner_alone_is_accepted(tmp_path: Path, mode: int) -> None:
    assert load_config(configuration(tmp_path, mode=mode))


def test_permissions_are_those_of_the_file_and_not_of_a_link(tmp_path: Path) -> None:
    path = configuration(tmp_path, mode=0o644)
    (tmp_path / "pe2.psk").rename(tmp_path / "elsewhere")
    (tmp_path / "pe2.psk").symlink_to("elsewhere")
    assert "is open to others" in problem_of(path)
    (tmp_path / "elsewhere").chmod(0o600)
    assert load_config(path)


def test_missing_secret_is_answered_with_how_to_make_one(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    (tmp_path / "pe2.psk").unlink()
    told = problem_of(path)
    assert "there is no file" in told
    assert "mplsec genkey" in told


def test_what_is_no_file_is_refused_and_blocks_nothing(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    secret = tmp_path / "pe2.psk"
    secret.unlink()
    os.mkfifo(secret, 0o600)
    assert "is not a regular file" in problem_of(path)
    secret.unlink()
    secret.mkdir(0o700)
    assert "is not a regular file" in problem_of(path)
    secret.rmdir()
    secret.symlink_to(secret)
    assert "cannot read" in problem_of(path)


@pytest.mark.parametrize("content", [b"", b"\n", b" \t \nsecond line\n", b"0x\n", b"0x123\n", b"0xzz\n"])
def test_secret_without_content_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "the secret" in problem_of(configuration(tmp_path, content))


def test_file_that_is_far_too_large_is_refused(tmp_path: Path) -> None:
    assert "is larger than" in problem_of(configuration(tmp_path, b"x" * 70_000))


def test_no_message_shows_the_secret(tmp_path: Path) -> None:
    path = configuration(tmp_path, b"0xsesame\n")
    assert "sesame" not in problem_of(path)
    path.write_text(COMPLETE.replace("psk_file", "psk").replace("pe2.psk", "sesame"))
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert "sesame" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "secret", "is_weak"),
    [
        (b"0x00ff\n", b"\x00\xff", True),
        (b"0X" + b"ab" * 10, b"\xab" * 10, False),
        (b"0x" + b"ab" * 9, b"\xab" * 9, True),
        (b"  open sesame, please!  \nignored\n", b"open sesame, please!", False),
        (b"open sesame, please\r\n", b"open sesame, please", True),
        ("schlüssel aus zwanzig".encode(), "schlüssel aus zwanzig".encode(), False),
    ],
)
def test_first_line_is_the_secret_as_text_or_hex(content: bytes, secret: bytes, is_weak: bool) -> None:
    assert parse_secret(content) == (secret, is_weak)


def test_empty_secret_says_what_makes_one() -> None:
    with pytest.raises(BadValue, match="empty") as raised:
        parse_secret(b"")
    assert "genkey" in raised.value.remedy
