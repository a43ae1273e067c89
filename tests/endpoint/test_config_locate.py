"""The locator gives the line of every table, key and item, whatever strings and nesting stand between."""

import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.config.locate import Path, locate_keys

DOCUMENT = '''\
title = "a # is no comment here" # but this is
[endpoint]
addresses = [
  "192.0.2.1", # [not a table]
  "192.0.2.2",
]
door = { netns = "x", deep = { list = [ 1,
  2 ] } }
[[vrf]]
name = "red"
text = """
[[vrf]]
name = "no key"
"""
[[vrf]]
name = 'blue'
"quoted key" = 1
a . "b.c" . d = 2
[[peer]]
[[peer.vrf]]
name = "red"
[[peer.vrf]]
name = "blue"
[peer.lifetime]
child = 1
[[peer]]
  [[peer.vrf]]
  name = """one"""""
  last = [ { x = 1 }, { x = 2, y = [ [ 1 ], [ 2,
      3 ] ] } ]
'''


def line_of(*path: str | int) -> int:
    return locate_keys(DOCUMENT).line_of(path)


def test_document_is_toml() -> None:
    assert tomllib.loads(DOCUMENT)["peer"][1]["vrf"][0]["last"][1]["y"][1] == [2, 3]


def test_keys_of_plain_and_nested_tables_are_found() -> None:
    assert line_of("title") == 1
    assert line_of("endpoint") == 2
    assert line_of("endpoint", "addresses") == 3
    assert line_of("endpoint", "door", "netns") == 7
    assert line_of("endpoint", "door", "deep", "list", 1) == 8


def test_items_of_a_list_over_several_lines_have_their_own_lines() -> None:
    assert line_of("endpoint", "addresses", 0) == 4
    assert line_of("endpoint", "addresses", 1) == 5


def test_arrays_of_tables_are_counted() -> None:
    assert line_of("vrf", 0, "name") == 10
    assert line_of("vrf", 1) == 15
    assert line_of("vrf", 1, "name") == 16
    assert line_of("peer", 0, "vrf", 1, "name") == 23
    assert line_of("peer", 0, "lifetime", "child") == 25
    assert line_of("peer", 1, "vrf", 0, "name") == 28
    assert line_of("peer", 1, "vrf", 0, "last", 1, "y", 1, 1) == 30


def test_text_over_several_lines_holds_no_tables() -> None:
    assert line_of("vrf", 0, "text") == 11
    assert line_of("vrf", 2) == line_of("vrf")


def test_quoted_and_dotted_keys_are_found() -> None:
    assert line_of("vrf", 1, "quoted key") == 17
    assert line_of("vrf", 1, "a", "b.c", "d") == 18


def test_what_is_not_there_has_the_line_of_what_encloses_it() -> None:
    assert line_of("peer", 0, "vrf", 0, "accept") == 20
    assert line_of("peer", 1, "auth") == 26
    assert line_of("nothing") == 1


NAME = st.sampled_from(["a", "b", "c-d", '"e.f"', "'g'"])
SCALAR = st.sampled_from(
    ["1", '"x # y"', "'[z]'", "1979-05-27 07:32:00", "true", '"""\n[[a]]\n"""', "-1.5e3"]
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[" + ",\n ".join(items) + "]"),
    max_leaves=6,
)
LINE = st.one_of(
    st.builds("{} = {}".format, NAME, VALUE),
    st.builds("{}.{} = {}".format, NAME, NAME, VALUE),
    st.builds("[{}]".format, NAME),
    st.builds("[[{}]]".format, NAME),
    st.builds("[[{}.{}]]".format, NAME, NAME),
    st.builds("{} = {{ {} = {}, k = 2 }}".format, NAME, NAME, SCALAR.filter(lambda text: "\n" not in text)),
    st.just("# [comment]"),
)


def paths_in(value: object, path: Path = ()) -> list[Path]:
    inside: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [path, *(found for step, item in inside for found in paths_in(item, (*path, step)))]


@settings(deadline=None)
@given(st.lists(LINE, max_size=12))
def test_every_path_of_a_document_is_located(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    located = locate_keys(text).lines
    assert set(paths_in(document)) - {()} == set(located)


@settings(deadline=None)
@given(st.text(alphabet="[]{}=,.\"'\\#\n ab1\t", max_size=60))
def test_any_text_is_walked_without_an_exception(text: str) -> None:
    lines = text.count("\n") + 1
    assert all(1 <= line <= lines for line in locate_keys(text).lines.values())
