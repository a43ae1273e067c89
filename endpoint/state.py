"""What an endpoint keeps over restarts, in `state_dir`: who was native, and which children were up.

It must not know IKE. After a crash the children that were up are started again at once: the new IKE SA's
INITIAL_CONTACT makes the peer drop what it still has of the old one (RFC 7296 2.4), so traffic heals without waiting
for the peer's liveness check. After an orderly stop nothing is up.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from endpoint.config import Selectors
from endpoint.errors import SetupError
from endpoint.plan import PeerPlan

__all__ = ["EndpointState"]

_log = logging.getLogger("mplsec.node")
FILE = "state.json"
SAVE_EVERY_S = 0.5
"""A crash may lose what changed so shortly after another change: the peer's liveness check heals that."""
_REMEDY = "mend it, or remove it to forget which peers were native"


class EndpointState:
    """Two facts, in a file if `state_dir` is given. SetupError for a file that cannot be read."""

    def __init__(self, state_dir: Path | None) -> None:
        self._path = None if state_dir is None else state_dir / FILE
        self.native: set[str] = set()
        """Identities with which native has once succeeded: `native-or-plain` never falls back with them (WIRE 4.2)."""
        self.up: dict[str, list[str]] = {}
        """Names of the children that each peer had when we were last heard of."""
        self._save_at: float | None = None
        self._not_before = float("-inf")
        if self._path is not None and self._path.exists():
            self._load(self._path)

    def remember_native(self, identity: str) -> None:
        """Keep it for good; an operator forgets it by editing the file."""
        if identity not in self.native:
            self.native.add(identity)
            self._save()

    def remember_up(self, peer: str, children: Iterable[str], now: float) -> None:
        """These children of the peer are up, and no others. Of many changes in a row not every one is written."""
        names = sorted(children)
        if names != self.up.get(peer, []):
            if names:
                self.up[peer] = names
            else:
                del self.up[peer]
            if now >= self._not_before:
                self._save()
                self._not_before = now + SAVE_EVERY_S
            elif self._save_at is None:
                self._save_at = self._not_before

    def next_deadline(self) -> float | None:
        """When `expire` has something to write."""
        return self._save_at

    def expire(self, now: float) -> None:
        """Write what has changed, if it is time."""
        if self._save_at is not None and self._save_at <= now:
            self._save()
            self._not_before = now + SAVE_EVERY_S

    def flush(self) -> None:
        """Write what has changed, now: this is the end."""
        if self._save_at is not None:
            self._save()

    def tighten(self, plan: PeerPlan) -> PeerPlan:
        """The plan as it is to be used: without falling back where native has once succeeded."""
        if plan.peer.selectors is Selectors.NATIVE_OR_PLAIN and plan.peer.identity in self.native:
            return replace(plan, connection=replace(plan.connection, extension_required=True))
        return plan

    def _load(self, path: Path) -> None:
        # Fail closed: with an unreadable memory no peer may be taken for one that never was native.
        try:
            document = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise SetupError(f"{path} cannot be read ({error}); {_REMEDY}") from error
        facts = document if isinstance(document, dict) else {}
        native, up = facts.get("native"), facts.get("up")
        if not _is_names(native) or not isinstance(up, dict) or not all(map(_is_names, up.values())):
            raise SetupError(f"{path} is not what mplsec writes; {_REMEDY}")
        self.native, self.up = set(facts["native"]), up

    def _save(self) -> None:
        self._save_at = None
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".new")
            with temporary.open("w") as file:
                file.write(json.dumps({"native": sorted(self.native), "up": self.up}, indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            _log.error("%s cannot be written: %s; make `state_dir` writable", self._path, error.strerror)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
