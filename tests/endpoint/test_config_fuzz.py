"""Whatever stands in a file, reading it gives a configuration or a ConfigError that can be printed."""

import copy
import json
import tomllib
from collections.abc import Iterator

from hypothesis import example, given, settings
from hypothesis import strategies as st

from endpoint.config import Config, ConfigError, parse_config
from endpoint.config.locate import Path
from tests.endpoint.config_texts import COMPLETE, LABELLED, PLAIN, PLAIN_IP, SECOND_PEER, SECRET

RULES = """
[[crypto_map]]
vrf = "red"
labels = [1000, "2000-2999"]
tc = [5]
source = ["10.1.0.0/16"]
protocol = "udp"
ports = 53
action = "protect"
class = "gold"
peer = "pe2"
"""
OTHERS = """
front_door = { mark = 7 }
label_range = [200000, 300000]
"""
LEAK = """
[[leak]]
from = "core"
to = "red"
prefixes = ["192.168.0.0/16"]
"""
DOCUMENTS = (
    COMPLETE,
    COMPLETE + SECOND_PEER,
    PLAIN + RULES,
    PLAIN.replace("[[vrf]]", f"{OTHERS}[[vrf]]", 1),
    PLAIN.replace(
        '"plain"', '"seclabel"\nliveness = "1m"\nlifetime = { child_rekey = 60 }\nstrict_child = true'
    ),
    PLAIN_IP,
    LABELLED + LEAK,
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 1 << 70),
    st.floats(),
    st.sampled_from(
        ["", "any", "off", "auto", "copy", "none", "red", "blue", "gold", "0", "0.0.0.0/0", "::/0"]
    ),
    st.sampled_from(
        ["name:red", "rd:1:1", "10.1.0.0/24", "192.0.2.1", "2001:db8::1", "keyid:", "dn:", "a@", "dn:CN"]
    ),
    st.text(max_size=8).filter(lambda text: text.isprintable()),
)
KEYS = st.sampled_from(
    ["name", "tun", "memory", "netns", "local", "peer", "routes", "gold", "psk_file", "x", "", "7"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=5,
)


def read(text: str) -> Config | None:
    """The configuration, or None after a look at its problems."""
    try:
        return parse_config(text, "fuzzed.toml", secrets={"pe2.psk": SECRET})
    except ConfigError as error:
        lines = text.count("\n") + 1
        assert error.problems
        assert [problem.line for problem in error.problems] == sorted(
            problem.line for problem in error.problems
        )
        for problem in error.problems:
            assert 1 <= problem.line <= lines
            assert str(problem).isprintable()
            assert problem.message
        return None


def encode(value: object) -> str:
    """A value in TOML, tables inline; None, which TOML has not, is a date."""
    match value:
        case None:
            return "1979-05-27"
        case dict():
            return (
                "{ " + ", ".join(f"{json.dumps(key)} = {encode(item)}" for key, item in value.items()) + " }"
            )
        case list():
            return "[" + ", ".join(map(encode, value)) + "]"
        case float():
            return repr(value)
        case _:
            return json.dumps(value)


def places(value: object, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from places(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield (*path, index)
            yield from places(item, (*path, index))


def test_documents_are_good_before_they_are_changed() -> None:
    for document in DOCUMENTS:
        assert read(document)
        again = "\n".join(f"{key} = {encode(item)}" for key, item in tomllib.loads(document).items())
        assert read(again)


@settings(deadline=None)
@given(st.data())
def test_any_value_in_any_place_is_read_or_reported(data: st.DataObject) -> None:
    document = copy.deepcopy(tomllib.loads(data.draw(st.sampled_from(DOCUMENTS))))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(sorted(places(document), key=repr) or [()]))
        if not path:
            break
        holder: object = document
        for step in path[:-1]:
            holder = holder[step]  # type: ignore[index]
        value = data.draw(VALUES)
        if isinstance(holder, dict) and data.draw(st.booleans()):
            holder[data.draw(KEYS)] = holder.pop(path[-1]) if data.draw(st.booleans()) else value
        else:
            holder[path[-1]] = value  # type: ignore[index]
    read("\n".join(f"{json.dumps(key)} = {encode(item)}" for key, item in document.items()))


@settings(deadline=None)
@given(
    st.sampled_from(DOCUMENTS),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 9), st.text(max_size=3))),
)
def test_any_edit_of_the_text_is_read_or_reported(document: str, edits: list[tuple[int, int, str]]) -> None:
    for position, removed, inserted in edits:
        start = position % (len(document) + 1)
        document = document[:start] + inserted + document[start + removed :]
    read(document)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
@example("\x00")
@example("[[peer]]\n[[peer.vrf]]\n[peer.vrf.labels]\n[peer.vrf.labels.x]")
@example("peer = [[[]], {}, 1]")
@example("vrf = [{ attach = [[], { tun = 1, memory = [] }] }]")
def test_any_text_is_read_or_reported(text: str) -> None:
    assert read(text) is None
