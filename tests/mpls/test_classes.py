"""Label classes: DSCP in, TC and outer DSCP out."""

import pytest

from mpls.classes import DSCP_NAMES, LabelClass, dscp_text, parse_dscp, tc_mask
from mpls.selectors import ALL_TC


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("ef", 46),
        ("EF", 46),
        ("cs0", 0),
        ("cs5", 40),
        ("cs7", 56),
        ("af11", 10),
        ("af43", 38),
        ("46", 46),
        (46, 46),
    ],
)
def test_dscp_names_have_the_numbers_of_the_registry(name: str | int, number: int) -> None:
    assert parse_dscp(name) == number


@pytest.mark.parametrize("value", ["cs8", "af14", "af51", "", "64", "-1", 64, -1, "٤"])
def test_other_dscp_values_are_refused_with_what_is_known(value: str | int) -> None:
    with pytest.raises(ValueError, match="af11 to af43"):
        parse_dscp(value)


def test_dscp_text_is_read_back_as_the_same_value() -> None:
    assert [parse_dscp(dscp_text(value)) for value in range(64)] == list(range(64))
    assert dscp_text(DSCP_NAMES["ef"]) == "ef"


def test_class_marks_with_its_first_tc_and_accepts_all_of_them() -> None:
    gold = LabelClass.parse("gold", ["ef", "cs5"], [5, 6, 7], "ef")
    assert gold.dscp == {46, 40}
    assert gold.mark(46) == 5
    assert gold.tc_mask == 0b11100000 == tc_mask((5, 6, 7))
    assert gold.outer(0) == 46


def test_class_without_tc_marks_by_dscp_and_accepts_any() -> None:
    plain = LabelClass(0)
    assert [plain.mark(dscp) for dscp in (0, 10, 46, 56)] == [0, 1, 5, 7]
    assert plain.tc_mask == ALL_TC


def test_outer_dscp_is_fixed_unless_copied() -> None:
    assert LabelClass(0).outer(46) == 0
    assert LabelClass.parse(0, outer_dscp="copy").outer(46) == 46


@pytest.mark.parametrize("values", [{"tc": (8,)}, {"tc": (-1,)}, {"tc": (5, 5)}, {"dscp": frozenset({64})}])
def test_impossible_class_is_refused(values: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="0 to"):
        LabelClass("gold", **values)  # type: ignore[arg-type]
