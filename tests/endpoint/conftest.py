"""Network namespaces for the tests that need root: made for one test, removed after it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from itertools import count

import pytest

_numbers = count()


def ip(*arguments: str, netns: str | None = None) -> str:
    """What `ip ARGUMENTS` prints, run in the namespace."""
    inside = ["-n", netns] if netns else []
    return subprocess.run(["ip", *inside, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(name="ip")
def ip_command() -> Callable[..., str]:
    return ip


@pytest.fixture
def new_namespace() -> Iterator[Callable[[], str]]:
    """A function that makes one more namespace, its loopback up, and returns its name."""
    made: list[str] = []

    def make() -> str:
        name = f"mplsec-test-{os.getpid()}-{next(_numbers)}"
        ip("netns", "add", name)
        made.append(name)
        ip("link", "set", "lo", "up", netns=name)
        return name

    yield make
    for name in made:
        subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.fixture
def namespace(new_namespace: Callable[[], str]) -> str:
    """One namespace."""
    return new_namespace()
