"""`[[leak]]`: prefixes of one VRF that another may reach, which nothing else lets happen.

Knows nothing of packets. Every prefix of a VRF is known from the configuration (what a peer announces lies inside its
`accept`), so what is a VRF's own and what is leaked into it is settled here.
"""

from collections.abc import Iterator
from ipaddress import ip_interface

from endpoint.config.locate import Path
from endpoint.config.model import Config, LeakConfig
from endpoint.config.problems import BadValue, Report, did_you_mean, quoted
from endpoint.config.table import Table
from endpoint.config.values import Prefix, parse_name, parse_prefix


def read_leak(table: Table, config: Config) -> LeakConfig:
    def vrf_of(key: str) -> str:
        def parse(value: object) -> str:
            name, names = parse_name(value), [vrf.name for vrf in config.vrfs]
            if name not in names:
                raise BadValue(f"there is no VRF {quoted(name)}", did_you_mean(name, names))
            return name

        if key not in table:
            table.error(key, "is missing", f'add {key} = "red"')
        return table.value(key, parse, "")

    leak = LeakConfig(vrf_of("from"), vrf_of("to"), table.some("prefixes", parse_prefix) or ())
    if "prefixes" not in table:
        table.error("prefixes", "are missing", 'add prefixes = ["10.9.0.0/24"]')
    if leak.source and leak.source == leak.target:
        table.error("to", "is the VRF that the prefixes are in", "name the VRF that may reach them")
    table.close()
    return leak


def check_leaks(config: Config, report: Report) -> None:
    leaked: dict[tuple[str, Prefix], str] = {}
    for index, leak in enumerate(config.leaks):
        path: Path = ("leak", index, "prefixes")
        for prefix in leak.prefixes:
            if prefix in set(beyond_announce(config, leak.target)):
                message = f"{prefix} is a prefix of VRF {quoted(leak.target)} itself"
                report.error(path, message, "leak what it does not have")
            other = leaked.setdefault((leak.target, prefix), leak.source)
            if other != leak.source:
                message = f"{prefix} is leaked into VRF {quoted(leak.target)} from {quoted(other)} already"
                report.error(path, message, "let it come from one VRF")
            if leak.source and not any(_meets(prefix, own) for own in own_prefixes(config, leak.source)):
                message = f"VRF {quoted(leak.source)} has nothing of {prefix}"
                report.warn(path, message, "leak what it announces or a peer may announce in it")


def own_prefixes(config: Config, name: str) -> Iterator[Prefix]:
    """What a VRF announces, what lies behind its attachments, and behind its peers."""
    vrf = config.vrf(name)
    if vrf is not None:
        yield from vrf.announce
    yield from beyond_announce(config, name)


def beyond_announce(config: Config, name: str) -> Iterator[Prefix]:
    """The same without what it announces: that may be leaked into it, for its peers to reach."""
    vrf = config.vrf(name)
    if vrf is None:
        return
    for attach in vrf.attach:
        yield from attach.prefixes
        yield from (ip_interface(address).network for address in attach.address)
    for peer in config.peers:
        granted = peer.vrf(name)
        if granted is not None:
            yield from granted.accept
            yield from granted.routes
            for labels in granted.labels:
                yield from labels.routes


def _meets(one: Prefix, other: Prefix) -> bool:
    return one.version == other.version and one.overlaps(other)
