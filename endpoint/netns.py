"""Network namespaces: doing something inside one without leaving our own (network_namespaces(7), setns(2)).

Must not know: what is done there. The namespace is a property of a thread, so each visit has a thread of its
own that ends with it; what was opened there (a socket, /dev/net/tun) stays bound to that namespace and is
usable everywhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from endpoint.errors import SetupError

__all__ = ["NAMES", "enter_namespace", "in_namespace", "namespace_thread"]

T = TypeVar("T")

NAMES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


def enter_namespace(name: str) -> None:
    """Move the calling thread into the namespace that `ip netns add NAME` made; SetupError if that cannot be.

    There is no way back: call it only in a thread that ends afterwards (`in_namespace`).
    """
    if not name or "/" in name or name in {".", ".."}:
        raise SetupError(f"network namespace {name!r}: not a name as `ip netns` lists them")
    try:
        descriptor = os.open(NAMES / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SetupError(
            f"network namespace {name}: {error.strerror}; make it with: ip netns add {name}"
        ) from error
    try:
        # os.setns exists from Python 3.12 on.
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            remedy = "needs root (CAP_SYS_ADMIN)" if code == errno.EPERM else "is it a network namespace?"
            raise SetupError(f"network namespace {name}: {os.strerror(code)}; {remedy}")
    finally:
        os.close(descriptor)


def namespace_thread(name: str | None) -> ThreadPoolExecutor:
    """An executor whose only thread lives inside `name` (None: where we are). SetupError if it cannot."""
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"netns-{name}")
    if name is not None:
        try:
            executor.submit(enter_namespace, name).result()
        except BaseException:
            executor.shutdown()
            raise
    return executor


def in_namespace(name: str | None, function: Callable[[], T]) -> T:
    """The result of `function()`, called inside the namespace (None: called here, without a thread)."""
    if name is None:
        return function()
    with namespace_thread(name) as executor:
        return executor.submit(function).result()
