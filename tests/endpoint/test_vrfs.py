"""VRFs between PEs: mapping, leaking, labels for each prefix, routes of one's own, many VRFs behind one address."""

from ipaddress import ip_address

import pytest

from endpoint.check import render_check
from endpoint.config import Config, ConfigError, parse_config
from endpoint.explain import Explainer
from endpoint.packets import GivenPacket
from mpls.ip import build_ip
from tests.endpoint.config_texts import SECRET, edited
from tests.endpoint.star import Star

HEAD = """
[endpoint]
identity  = "pe{own}.example"
addresses = ["192.0.2.{own}"]
"""
VRF = """
[[vrf]]
name     = "{name}"
attach   = [{{ memory = "{name}", address = ["{address}"] }}]
announce = [{announce}]
{more}
"""
PEER = """
[[peer]]
name      = "pe{other}"
identity  = "pe{other}.example"
addresses = ["192.0.2.{other}"]
auth      = {{ psk_file = "psk" }}
"""
GRANT = """
  [[peer.vrf]]
  name    = "{name}"
  accept  = [{accept}]
  {more}
"""


def read(text: str) -> Config:
    return parse_config(text, "pe.toml", secrets={"psk": SECRET})


def vrf(name: str, address: str, *announce: str, more: str = "") -> str:
    return VRF.format(
        name=name, address=address, announce=", ".join(f'"{one}"' for one in announce), more=more
    )


def grant(name: str, *accept: str, more: str = "") -> str:
    return GRANT.format(name=name, accept=", ".join(f'"{one}"' for one in accept), more=more)


def udp(source: str, destination: str, ttl: int = 64) -> bytes:
    return build_ip(ip_address(source).packed, ip_address(destination).packed, 17, bytes(8), ttl=ttl)


def test_cisco_restriction_no_tunnel_mapping_between_vrfs() -> None:
    """ "VRF-aware IPsec does not allow IPsec tunnel mapping between VRFs": here the peer's red is our blue."""
    one = (
        HEAD.format(own=1)
        + vrf("red", "10.1.0.1/24", "10.1.0.0/24")
        + vrf("blue", "10.1.0.1/24", "10.1.0.0/24")
    )
    one += PEER.format(other=2) + grant("blue", "10.2.0.0/16", more='peer_id = "name:red"')
    two = HEAD.format(own=2) + vrf("red", "10.2.0.1/24", "10.2.0.0/24") + PEER.format(other=1)
    two += grant("red", "10.1.0.0/16", more='peer_id = "name:blue"')
    star = Star(read(one), read(two))
    star.send("192.0.2.1", "blue", udp("10.1.0.9", "10.2.0.9"))
    star.run(2)
    star.send("192.0.2.2", "red", udp("10.2.0.9", "10.1.0.9"))
    star.send("192.0.2.1", "red", udp("10.1.0.9", "10.2.0.9"))
    star.run(2)
    assert star.members["192.0.2.2"].delivered == [("red", udp("10.1.0.9", "10.2.0.9", ttl=62))]
    assert star.members["192.0.2.1"].delivered[0] == ("blue", udp("10.2.0.9", "10.1.0.9", ttl=62))
    # Our red is mapped to nothing: its packet has no way, and ICMP says so.
    assert star.members["192.0.2.1"].drops("no_class") + star.members["192.0.2.1"].drops("no_route") == 1
    assert [name for name, _ in star.members["192.0.2.1"].delivered].count("blue") == 1


LEAK = """
[[leak]]
from     = "shared"
to       = "red"
prefixes = ["0.0.0.0/0"]
[[leak]]
from     = "red"
to       = "shared"
prefixes = ["10.1.0.0/24"]
"""


def leaking() -> tuple[str, str]:
    """pe1 has red and shared, pe2 too; only pe1 leaks, and only between these two."""
    one = HEAD.format(own=1) + vrf("red", "10.1.0.1/24", "10.1.0.0/24")
    one += vrf("shared", "172.20.1.1/24", "172.20.1.0/24") + vrf("blue", "10.1.0.1/24", "10.1.0.0/24") + LEAK
    one += PEER.format(other=2)
    one += grant("red", "10.2.0.0/16") + grant("shared", "172.20.2.0/24") + grant("blue", "10.2.0.0/16")
    two = HEAD.format(own=2) + vrf("red", "10.2.0.1/24", "10.2.0.0/24")
    two += vrf("shared", "172.20.2.1/24", "172.20.2.0/24") + vrf("blue", "10.2.0.1/24", "10.2.0.0/24")
    two += PEER.format(other=1)
    two += grant("red", "10.1.0.0/16") + grant("shared", "172.20.1.0/24", "10.1.0.0/24")
    two += grant("blue", "10.1.0.0/16")
    return one, two


def test_leak_reaches_an_attachment_of_the_other_vrf_without_leaving_the_pe() -> None:
    star = Star(*map(read, leaking()))
    star.send("192.0.2.1", "red", udp("10.1.0.9", "172.20.1.9"))
    star.send("192.0.2.1", "shared", udp("172.20.1.9", "10.1.0.9"))
    # One of the two directions for blue would be a packet that crosses VRFs without leave.
    star.send("192.0.2.1", "blue", udp("10.1.0.9", "172.20.1.9"))
    star.run(1)
    one = star.members["192.0.2.1"]
    # The third delivery is the ICMP error for blue.
    assert [where for where in one.delivered if where[0] != "blue"] == [
        ("shared", udp("10.1.0.9", "172.20.1.9", ttl=63)),
        ("red", udp("172.20.1.9", "10.1.0.9", ttl=63)),
    ]
    assert one.drops("no_route") == 1
    assert not list(one.node.children), "nothing was protected, nothing was started"
    assert ("red", "0.0.0.0/0") in one.routes, "the attachment's kernel learns where it leads"


def test_leak_leads_through_the_other_vrfs_sa_and_longer_prefixes_stay() -> None:
    star = Star(*map(read, leaking()))
    star.send("192.0.2.1", "red", udp("10.1.0.9", "172.20.2.9"), udp("10.1.0.9", "10.2.0.9"))
    star.run(2)
    one, two = star.members["192.0.2.1"], star.members["192.0.2.2"]
    assert sorted(two.delivered) == [
        ("red", udp("10.1.0.9", "10.2.0.9", ttl=62)),
        ("shared", udp("10.1.0.9", "172.20.2.9", ttl=62)),
    ]
    assert sorted(child.kind.name for child in one.node.children) == ["red/0", "shared/0"]


def test_what_arrives_on_the_other_vrfs_sa_is_leaked_back() -> None:
    one, two = leaking()
    # pe1 says to pe2's shared that red's prefix can be reached in it.
    one = one.replace('announce = ["172.20.1.0/24"]', 'announce = ["172.20.1.0/24", "10.1.0.0/24"]')
    star = Star(read(one.replace('prefixes = ["10.1.0.0/24"]', 'prefixes = ["10.1.0.192/26"]')), read(two))
    star.send("192.0.2.2", "shared", udp("172.20.2.9", "10.1.0.200"), udp("172.20.2.9", "10.1.0.130"))
    star.run(2)
    assert sorted(star.members["192.0.2.1"].delivered) == [
        ("red", udp("172.20.2.9", "10.1.0.200", ttl=62)),
        ("shared", udp("172.20.2.9", "10.1.0.130", ttl=62)),  # announced, and not leaked
    ]


def test_urpf_of_the_vrf_that_a_packet_came_from_holds_for_leaks_too() -> None:
    star = Star(*map(read, leaking()))
    star.send("192.0.2.1", "red", udp("172.20.1.7", "172.20.1.9"))
    star.run(1)
    assert star.members["192.0.2.1"].drops("urpf") == 1
    assert not star.members["192.0.2.1"].delivered


def test_rule_of_the_other_vrf_decides_about_what_leaks_into_it() -> None:
    one, two = leaking()
    rule = '[[crypto_map]]\nvrf = "shared"\ndestination = ["172.20.1.0/28"]\naction = "discard"\n'
    star = Star(read(one + rule), read(two))
    star.send("192.0.2.1", "red", udp("10.1.0.9", "172.20.1.9"), udp("10.1.0.9", "172.20.1.99"))
    star.run(1)
    assert star.members["192.0.2.1"].drops("discarded") == 1
    assert [packet for _, packet in star.members["192.0.2.1"].delivered] == [
        udp("10.1.0.9", "172.20.1.99", ttl=63)
    ]


def test_check_and_explain_tell_of_leaks() -> None:
    config = read(leaking()[0])
    assert "leak: VRF red reaches 0.0.0.0/0 in VRF shared" in render_check(config)
    explainer = Explainer(config)
    here = explainer.explain(GivenPacket(1, udp("10.1.0.9", "172.20.1.9")), "red")
    assert (here.outcome, here.leaves_by) == ("bypassed", "shared")
    assert "leaked into VRF red" in here.why[0]
    there = explainer.explain(GivenPacket(1, udp("10.1.0.9", "172.20.2.9")), "red")
    assert (there.outcome, there.child) == ("protected", "shared/0")
    assert there.why[0] == "a leak leads to VRF shared"
    assert explainer.explain(GivenPacket(1, udp("10.1.0.9", "172.20.2.9")), "blue").reason == "no_route"


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        ('from     = "shared"', 'from = "sharde"', "leak[1].from", 'no VRF "sharde"'),
        ('from     = "shared"\n', "", "leak[1].from", "is missing"),
        ('to       = "red"', 'to = "shared"', "leak[1].to", "the VRF that the prefixes are in"),
        ('prefixes = ["0.0.0.0/0"]', "", "leak[1].prefixes", "are missing"),
        ('prefixes = ["0.0.0.0/0"]', 'prefixes = ["10.2.0.0/16"]', "leak[1].prefixes", "of VRF \"red\" itself"),
        ("[[leak]]\nfrom     = \"shared\"", '[[leak]]\nfrom = "blue"\nto = "red"\nprefixes = ["0.0.0.0/0"]\n'
         '[[leak]]\nfrom     = "shared"', "leak[2].prefixes", 'from "blue" already'),
    ],
)  # fmt: skip
def test_mistakes_of_leaks_are_named(old: str, new: str, key: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(edited(leaking()[0], old, new))
    found = raised.value.problems
    assert any(one.key == key and message in one.message for one in found), list(map(str, found))


def test_leak_of_what_the_vrf_does_not_have_is_warned_about() -> None:
    text = leaking()[0].replace('prefixes = ["0.0.0.0/0"]', 'prefixes = ["203.0.113.0/24"]')
    assert ["has nothing of 203.0.113.0/24" in one.message for one in read(text).warnings] == [True]


def test_labels_per_prefix_and_per_vrf() -> None:
    one = HEAD.format(own=1) + vrf(
        "red", "10.1.0.1/16", "10.1.0.0/24", "10.1.7.0/24", more='labels_per = "prefix"'
    )
    one += vrf("blue", "10.1.0.1/16", "10.1.0.0/24", "10.1.7.0/24") + vrf("green", "10.1.0.1/16")
    one += PEER.format(other=2) + "".join(grant(name, "10.2.0.0/16") for name in ("red", "blue", "green"))
    two = HEAD.format(own=2) + "".join(
        vrf(name, "10.2.0.1/24", "10.2.0.0/24") for name in ("red", "blue", "green")
    )
    two += PEER.format(other=1) + grant("red", "10.1.0.0/16") + grant("blue", "10.1.0.0/16")
    # Green announces nothing: its per-VRF label serves the routes that pe2 has of its own.
    two += grant("green", "10.1.0.0/16", more='routes = ["10.1.0.0/16"]')
    star = Star(read(one), read(two))
    for name in ("red", "blue", "green"):
        star.send("192.0.2.2", name, udp("10.2.0.9", "10.1.0.9"), udp("10.2.0.9", "10.1.7.9"))
    star.run(2)
    delivered = star.members["192.0.2.1"].delivered
    assert sorted(name for name, _ in delivered) == ["blue", "blue", "green", "green", "red", "red"]
    routes = {
        (name, str(route.prefix)): route.label
        for name, _, route in star.members["192.0.2.2"].node.table.routes()
    }
    red, blue = (
        {routes[name, prefix] for prefix in ("10.1.0.0/24", "10.1.7.0/24")} for name in ("red", "blue")
    )
    assert (len(red), len(blue)) == (2, 1)
    assert routes["green", "10.1.0.0/16"] is None, "a static route names no label"
    (exchange,) = star.members["192.0.2.1"].node.labels
    given = [vrf for vrf, _, _ in exchange.labels_given()]
    assert sorted(given) == ["blue", "green", "red", "red"]
    assert len({label for _, _, label in exchange.labels_given()}) == 4


def test_many_vrfs_behind_one_public_address_chosen_by_peer_identity() -> None:
    """Every spoke calls its VRF "customer" and uses the same addresses; the hub's one address serves all of them."""
    spokes = range(11, 23)
    hub = HEAD.format(own=1)
    for spoke in spokes:
        hub += vrf(f"c{spoke}", "10.1.0.1/24", "10.1.0.0/24")
    for spoke in spokes:
        hub += PEER.format(other=spoke).replace(f'["192.0.2.{spoke}"]', '["any"]')
        hub += grant(f"c{spoke}", "10.2.0.0/16", more='peer_id = "name:customer"')
    configs = [read(hub)]
    for spoke in spokes:
        text = HEAD.format(own=spoke) + vrf("customer", "10.2.0.1/24", "10.2.0.0/24") + PEER.format(other=1)
        configs.append(read(text + grant("customer", "10.1.0.0/16", more=f'peer_id = "name:c{spoke}"')))
    star = Star(*configs)
    for spoke in spokes:
        star.send(f"192.0.2.{spoke}", "customer", udp("10.2.0.9", f"10.1.0.{spoke}"))
    star.run(3)
    assert sorted(star.members["192.0.2.1"].delivered) == sorted(
        (f"c{spoke}", udp("10.2.0.9", f"10.1.0.{spoke}", ttl=62)) for spoke in spokes
    )
    for spoke in spokes:
        star.send("192.0.2.1", f"c{spoke}", udp(f"10.1.0.{spoke}", "10.2.0.9"))
    star.run(1)
    for spoke in spokes:
        expected = [("customer", udp(f"10.1.0.{spoke}", "10.2.0.9", ttl=62))]
        assert star.members[f"192.0.2.{spoke}"].delivered == expected


def test_leaked_prefix_can_be_announced_to_the_peers_of_the_vrf_that_it_is_leaked_into() -> None:
    one, two = leaking()
    one = one.replace('announce = ["172.20.1.0/24"]', 'announce = ["172.20.1.0/24", "10.1.0.0/24"]')
    star = Star(read(one), read(two))
    star.send("192.0.2.2", "shared", udp("172.20.2.9", "10.1.0.9"))
    # It is announced there, but it is not behind shared's attachment: a source of it is forged.
    star.send("192.0.2.1", "shared", udp("10.1.0.9", "172.20.2.9"))
    star.run(2)
    assert star.members["192.0.2.1"].delivered == [("red", udp("172.20.2.9", "10.1.0.9", ttl=62))]
    assert star.members["192.0.2.1"].drops("urpf") == 1


def test_overlapping_ipv4_and_ipv6_prefixes_stay_in_their_vrfs() -> None:
    def text(own: int) -> str:
        other = 3 - own
        made = HEAD.format(own=own)
        for name in ("red", "blue"):
            made += vrf(name, f"10.{own}.0.1/24", f"10.{own}.0.0/24", f"2001:db8:{own}::/48")
        made += PEER.format(other=other)
        for name in ("red", "blue"):
            made += grant(name, f"10.{other}.0.0/16", f"2001:db8:{other}::/48")
        return made

    star = Star(read(text(1)), read(text(2)))
    four, six = udp("10.1.0.9", "10.2.0.9"), udp("2001:db8:1::9", "2001:db8:2::9")
    star.send("192.0.2.1", "red", four, six)
    star.run(2)
    assert sorted(name for name, _ in star.members["192.0.2.2"].delivered) == ["red", "red"]
    star.send("192.0.2.1", "blue", four, six)
    star.run(2)
    assert sorted(name for name, _ in star.members["192.0.2.2"].delivered) == ["blue", "blue", "red", "red"]
