"""A traffic selector type of one's own, negotiated between two engines.

TS type 241 (private use) names a set of colours, one bit each. It travels beside an address selector, is narrowed
to the colours that both ends allow, and must be the same in TSi and TSr.
"""

from dataclasses import dataclass
from ipaddress import ip_network

import ike
from ike.selectors import Selectors
from ike.testing.pair import Pair, connections

TS_COLOURS = 241
RED, GREEN, BLUE = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Colours:
    """type(1) | 0(1) | length(2) | mask(1): 5 octets."""

    mask: int

    @property
    def ts_type(self) -> int:
        return TS_COLOURS

    def encode(self) -> bytes:
        return bytes((TS_COLOURS, 0, 0, 5, self.mask))

    def narrow(self, policy: "Colours", /) -> "Colours | None":
        common = self.mask & policy.mask
        return Colours(common) if common else None

    def is_subset_of(self, other: "Colours", /) -> bool:
        return not self.mask & ~other.mask

    @classmethod
    def parse(cls, octets: bytes) -> "Colours":
        if len(octets) != 5 or octets[1] or not octets[4]:
            raise ValueError("a mask of one octet, and not empty")
        return cls(octets[4])


def same_both_ways(tsi: Selectors, tsr: Selectors) -> tuple[Selectors, Selectors] | None:
    """The rule across payloads: both name the same colours."""
    ours, theirs = ([s for s in side if s.ts_type == TS_COLOURS] for side in (tsi, tsr))
    return (tsi, tsr) if ours == theirs else None


def registry() -> ike.SelectorRegistry:
    return ike.SelectorRegistry([ike.SelectorType(TS_COLOURS, Colours.parse, same_both_ways)])


def child(mask: int) -> ike.ChildConfig:
    everything = ike.AddressSelector.from_network(ip_network("0.0.0.0/0"))
    ts = (everything, Colours(mask))
    return ike.ChildConfig("net", (ike.parse_esp_proposal("aes256gcm16"),), ike.Mode.TUNNEL, ts, ts)


def negotiate(ours: int, theirs: int) -> int | None:
    """The colours that two ends agree on; None: TS_UNACCEPTABLE."""
    left, right = connections(child(ours))[0], connections(child(theirs))[1]
    pair = Pair(left, right, registry=registry)
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    masks = [s.mask for c in pair.right.children.values() for s in c.local_ts if isinstance(s, Colours)]
    return masks[0] if masks else None


def main() -> None:
    print("red and green, with green and blue:", negotiate(RED | GREEN, GREEN | BLUE))
    print("red, with blue:", negotiate(RED, BLUE))


if __name__ == "__main__":
    main()
