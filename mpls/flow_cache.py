"""A bounded cache in front of what is decided by flow: a hit costs the same however many rules and routes there are.

Knows nothing of what is cached.
"""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

FLOW_CACHE_FLOWS: Final = 4096
Key = TypeVar("Key", bound=Hashable)
Cached = TypeVar("Cached")


class FlowCache(Generic[Key, Cached]):
    """Two generations: what was used since the older one was started survives, the rest goes in one step."""

    def __init__(self, flows: int = FLOW_CACHE_FLOWS) -> None:
        self._half = max(1, flows // 2)
        self._young: dict[Key, Cached] = {}
        self._old: dict[Key, Cached] = {}

    def get(self, key: Key) -> Cached | None:
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: Key, value: Cached) -> None:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = value

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
