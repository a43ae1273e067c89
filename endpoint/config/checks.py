"""What must hold between the parts of a configuration: references, uniqueness, classes.

Knows nothing of TOML types. Paths are those of the document: the n-th value comes from the n-th table.
Placeholders for what was reported already (an empty name, label 0) are passed over.
"""

from collections.abc import Hashable, Iterable, Iterator

from endpoint.config.locate import Path
from endpoint.config.model import Config, VrfConfig
from endpoint.config.problems import Report, did_you_mean, quoted
from mpls.identifiers import ClassId


def refuse_repeats(report: Report, entries: Iterable[tuple[Hashable, str, Path]], remedy: str) -> None:
    """Report each (key, what it is called, path) whose key came before."""
    first: dict[Hashable, Path] = {}
    for key, called, path in entries:
        if key in first:
            line = report.locations.line_of(first[key])
            report.error(path, f"{called} stands in line {line} already", remedy)
        first.setdefault(key, path)


def check_names(config: Config, report: Report) -> None:
    def names() -> Iterator[tuple[str, ClassId, Path]]:
        yield from (("vrf", vrf.name, ("vrf", index, "name")) for index, vrf in enumerate(config.vrfs))
        yield from (("class", one.id, ("class", index, "name")) for index, one in enumerate(config.classes))
        yield from (("peer", peer.name, ("peer", index, "name")) for index, peer in enumerate(config.peers))

    entries = (
        ((kind, name), f"{kind} {quoted(str(name))}", path) for kind, name, path in names() if name != ""
    )
    refuse_repeats(report, entries, "give it another name")
    ids = (
        (vrf.id, f"the id {quoted(vrf.id_text)}", ("vrf", i, "id"))
        for i, vrf in enumerate(config.vrfs)
        if vrf.name
    )
    refuse_repeats(report, ids, "an id names one VRF")


def check_classes(config: Config, report: Report) -> None:
    """A VRF's classes are tried in order, so one that matches everything has to be the last (WIRE.md 6.1)."""
    for index, vrf in enumerate(config.vrfs):
        _check_class_order(config, report, vrf, ("vrf", index, "classes"))
    used = {class_id for vrf in config.vrfs for class_id in vrf.classes}
    for index, one in enumerate(config.classes):
        if one.id != "" and one.id not in used:
            message = f"no VRF has the class {quoted(str(one.id))}"
            report.warn(("class", index, "name"), message, did_you_mean(str(one.id), map(str, used)))


def _check_class_order(config: Config, report: Report, vrf: VrfConfig, path: Path) -> None:
    chosen: dict[int, ClassId] = {}
    catch_all: ClassId | None = None
    for class_id in vrf.classes:
        dscp = config.label_class(class_id).dscp
        if catch_all is not None:
            first = quoted(str(catch_all))
            message = f"class {quoted(str(class_id))} is never chosen: {first} before it matches all"
            report.warn(path, message, f"give {first} a [[class]] with dscp, or put it last")
        elif not dscp:
            catch_all = class_id
        for value in sorted(dscp):
            other = chosen.setdefault(value, class_id)
            if other != class_id:
                message = f"DSCP {value} selects {quoted(str(other))}, so never {quoted(str(class_id))}"
                report.warn(path, message, "let a DSCP select one class")
    if catch_all is None:
        message = f"packets of VRF {quoted(vrf.name)} with another DSCP than its classes select are dropped"
        report.warn(path, message, "end with a class that has no dscp")
