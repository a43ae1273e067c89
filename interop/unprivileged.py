"""Without root: the part of the lab that runs in a user namespace, with all capabilities over networks of its own.

Must not know: any particular case. A kernel gives every user such a namespace (user_namespaces(7)): in it there are
bridges, taps, TUN devices, captures and guests, but neither containers nor the building of file systems. We stay the
user that we are: with one user mapped, a program that finds itself root and wants to be another one (tcpdump) fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .cases.case import Case
from .packages import missing_tools
from .processes import CommandError, run

TUN = Path("/dev/net/tun")
INSIDE = "MPLSEC_LAB_INSIDE"
NAMESPACES = (
    "unshare",
    "--user",
    "--map-current-user",
    "--keep-caps",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
)


def obstacles() -> list[str]:
    """What has to be changed by root before anything can run; empty: nothing."""
    found = []
    if missing := missing_tools():
        found.append(f"not installed: apt-get install {' '.join(sorted(set(missing.values())))}")
    if not os.access(TUN, os.R_OK | os.W_OK):
        found.append(f"{TUN} is not open to you (udev makes it so: chmod 0666 {TUN})")
    try:
        run([*NAMESPACES, "true"])
    except CommandError as error:
        found.append(f"no user namespaces (sysctl kernel.unprivileged_userns_clone, apparmor): {error}")
    return found


def reason_against(case: Case) -> str:
    """Why a case cannot run; empty: it can."""
    if case.needs_docker:
        return "containers need root"
    missing = sorted({root.suite for root in case.roots if not root.path.is_dir()})
    return f"root has not built the file systems yet: {', '.join(missing)}" if missing else ""


def select(cases: Sequence[Case]) -> list[Case]:
    """Those that can run; says how many cannot, and why."""
    reasons = {case.name: reason_against(case) for case in cases}
    for reason in sorted({reason for reason in reasons.values() if reason}):
        names = [name for name, one in reasons.items() if one == reason]
        print(f"not without root: {len(names)} cases ({reason}), such as {names[0]}", flush=True)
    return [case for case in cases if not reasons[case.name]]


def go_inside() -> None:
    """Start this program again, with the same arguments, in namespaces of its own. Does not return."""
    os.environ[INSIDE] = "1"
    os.execvp(NAMESPACES[0], [*NAMESPACES, sys.executable, "-m", "interop", *sys.argv[1:]])  # noqa: S606


def is_inside() -> bool:
    return INSIDE in os.environ


def furnish() -> None:
    """What is where the lab writes: /run is empty and ours, and /proc shows our processes."""
    run(["mount", "-t", "tmpfs", "tmpfs", "/run"])
    run(["mount", "-t", "proc", "proc", "/proc"])
