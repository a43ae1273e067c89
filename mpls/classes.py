"""Label classes: the DSCP that select one, the TC that carries it, the outer DSCP (RFC 3270).

Knows nothing of the packets themselves, of peers or of Child SAs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from mpls.identifiers import ClassId
from mpls.models import QosModel

DSCP_NAMES: Final = (
    {f"cs{n}": n << 3 for n in range(8)}  # RFC 2474 4.2.2
    | {f"af{c}{d}": c << 3 | d << 1 for c in range(1, 5) for d in range(1, 4)}  # RFC 2597
    | {"ef": 46, "va": 44, "le": 1, "default": 0}  # RFC 3246, 5865, 8622, 2474
)
ALL_TC: Final = 0xFF
"""The selector's mask (bit n = TC n) when every TC is allowed."""


def parse_dscp(value: str | int) -> int:
    """A DSCP from its name ("ef", "cs5", "af41") or its number 0..63; ValueError says what is known."""
    if isinstance(value, str):
        number = DSCP_NAMES.get(value.lower())
        if number is None and value.isascii() and value.isdigit():
            number = int(value)
    else:
        number = value
    if number is None or not 0 <= number <= 63:
        raise ValueError(
            f"no DSCP: {value!r} (known: 0 to 63, ef, va, le, default, cs0 to cs7, af11 to af43)"
        )
    return number


def dscp_text(dscp: int) -> str:
    """The name where there is one, else the number."""
    return next((name for name, number in DSCP_NAMES.items() if number == dscp), str(dscp))


def tc_mask(values: Iterable[int]) -> int:
    """Bit n for TC n, as the selector's key 4 has it."""
    mask = 0
    for value in values:
        mask |= 1 << value
    return mask


@dataclass(frozen=True, slots=True)
class LabelClass:
    """One class of one or more VRFs.

    dscp         the inner DSCP values that select it; empty: it matches all
    tc           the TC it is marked with (the first) and accepted with (all); empty: marked with the top bits
                 of the DSCP, as routers do where nothing is configured, and accepted with any
    outer_dscp   what the header outside ESP shows; None copies the inner DSCP. A fixed value is the default
                 because a copied one shows the class to whoever watches the path
    qos_model    whether a DSCP that changed on the way counts at the tail, see `models`
    """

    id: ClassId
    dscp: frozenset[int] = frozenset()
    tc: tuple[int, ...] = ()
    outer_dscp: int | None = 0
    qos_model: QosModel = QosModel.PIPE

    def __post_init__(self) -> None:
        if any(not 0 <= value <= 63 for value in self.dscp):
            raise ValueError("a DSCP is 0 to 63")
        if any(not 0 <= value <= 7 for value in self.tc) or len(set(self.tc)) != len(self.tc):
            raise ValueError("a TC is 0 to 7, each at most once")

    @classmethod
    def parse(
        cls,
        class_id: ClassId,
        dscp: Iterable[str | int] = (),
        tc: Iterable[int] = (),
        outer_dscp: str | int = 0,
    ) -> Self:
        """From configuration values; `outer_dscp` may be "copy". ValueError names the bad one."""
        outer = None if outer_dscp == "copy" else parse_dscp(outer_dscp)
        return cls(class_id, frozenset(map(parse_dscp, dscp)), tuple(tc), outer)

    @property
    def tc_mask(self) -> int:
        """What the selector's key 4 allows: bit n = TC n."""
        return tc_mask(self.tc) if self.tc else ALL_TC

    def mark(self, dscp: int, tc: int | None = None) -> int:
        """The TC for a packet of this class; `tc` is what it had if it came with labels."""
        if self.tc:
            return self.tc[0]
        return dscp >> 3 if tc is None else tc

    def outer(self, dscp: int) -> int:
        """The DSCP of the outer header for a packet of this class."""
        is_copied = self.outer_dscp is None or self.qos_model is QosModel.UNIFORM
        return dscp if is_copied or self.outer_dscp is None else self.outer_dscp
