"""endpoint/netns.py: what is opened inside a namespace stays there; the process never moves."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from endpoint.config import FrontDoor
from endpoint.errors import SetupError
from endpoint.netns import in_namespace
from endpoint.sockets import open_socket

Ip = Callable[..., str]


def own_namespace() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_without_a_namespace_the_function_runs_here() -> None:
    assert in_namespace(None, threading.get_ident) == threading.get_ident()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd"])
def test_paths_are_no_names(name: str) -> None:
    with pytest.raises(SetupError, match="not a name"):
        in_namespace(name, own_namespace)


def test_missing_namespace_is_said_with_the_remedy() -> None:
    with pytest.raises(SetupError, match="No such file or directory; make it with: ip netns add no-such"):
        in_namespace("no-such", own_namespace)


@pytest.mark.root
def test_function_runs_inside_and_the_process_stays_outside(namespace: str) -> None:
    before, threads = own_namespace(), threading.active_count()
    assert in_namespace(namespace, own_namespace) == Path("/run/netns", namespace).stat().st_ino
    assert own_namespace() == before
    assert threading.active_count() == threads


@pytest.mark.root
def test_error_of_the_function_arrives(namespace: str) -> None:
    with pytest.raises(ZeroDivisionError):
        in_namespace(namespace, lambda: 1 // 0)


@pytest.mark.root
def test_file_that_is_no_namespace_is_refused(namespace: str) -> None:
    impostor = Path("/run/netns", f"{namespace}-file")
    impostor.touch()
    try:
        with pytest.raises(SetupError, match="is it a network namespace"):
            in_namespace(impostor.name, own_namespace)
    finally:
        impostor.unlink()


@pytest.mark.root
def test_front_door_namespace_has_its_own_ports(namespace: str) -> None:
    inside = open_socket(("127.0.0.1", 4500), socket.SOCK_DGRAM, 0, FrontDoor(netns=namespace))
    outside = open_socket(("127.0.0.1", 0), socket.SOCK_DGRAM)
    outside.sendto(b"not for you", ("127.0.0.1", 4500))
    with pytest.raises(BlockingIOError):
        inside.recv(100)
    inside.sendto(b"to myself", ("127.0.0.1", 4500))
    assert inside.recv(100) == b"to myself"
    inside.close()
    outside.close()


@pytest.mark.root
def test_front_door_device_and_mark_are_set(namespace: str) -> None:
    door = FrontDoor(netns=namespace, device="lo", mark=0x10)
    sock = open_socket(("127.0.0.1", 4500), socket.SOCK_DGRAM, 0, door)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x10
    sock.close()


@pytest.mark.root
def test_front_door_device_that_is_not_there_is_said(namespace: str) -> None:
    with pytest.raises(SetupError, match=f"there is no device red0: see `ip -n {namespace} link`"):
        open_socket(("127.0.0.1", 4500), socket.SOCK_DGRAM, 0, FrontDoor(netns=namespace, device="red0"))


def test_no_descriptor_is_lost_when_opening_fails() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(10):
        with pytest.raises(SetupError):
            open_socket(("192.0.2.77", 0), socket.SOCK_DGRAM)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
