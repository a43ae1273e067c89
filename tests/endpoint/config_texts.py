"""Configurations that the tests of the reader start from, and what they do with them."""

from pathlib import Path

import pytest

from endpoint.config import Config, ConfigError, Problem, parse_config

EXAMPLES = Path(__file__).parents[2] / "examples"
SECRET = b"0x" + b"ab" * 32

# The whole reference example; `labels` is for a plain peer, so here it is only warned about.
COMPLETE = """\
[endpoint]
identity   = "pe1.example"
addresses  = ["192.0.2.1"]
front_door = { netns = "internet" }
state_dir  = "/var/lib/mplsec"

[[vrf]]
name    = "red"
id      = "name:red"
classes = ["gold", "standard"]
urpf    = "strict"
attach  = [{ tun = "red0", netns = "red", address = ["10.1.0.1/24"], mtu = "auto" }]
announce = ["10.1.0.0/24"]

[[class]]
name = "gold"
dscp = ["ef", "cs5"]
tc   = [5, 6, 7]
outer_dscp = "ef"

[[peer]]
name      = "pe2"
identity  = "pe2.example"
addresses = ["192.0.2.2"]
auth      = { psk_file = "pe2.psk" }
ike       = ["aes256gcm16-prfsha384-x25519"]
esp       = ["aes256gcm16"]
selectors = "native"
mode      = "transport"
encapsulation = "mpls-in-ip"
udp       = "auto"
start     = "traffic"

  [[peer.vrf]]
  name    = "red"
  peer_id = "name:red"
  classes = ["gold", "standard"]
  accept  = ["10.2.0.0/16"]
  labels  = { local = 101, peer = 102, routes = ["10.2.0.0/24"] }
"""

PLAIN = """\
[endpoint]
identity = "pe1.example"
addresses = ["192.0.2.1", "2001:db8::1"]
[[vrf]]
name = "red"
classes = ["gold", "standard"]
attach = [{ memory = "red" }]
announce = ["10.1.0.0/24"]
[[vrf]]
name = "blue"
attach = [{ memory = "blue" }]
announce = ["10.1.0.0/24"]
[[class]]
name = "gold"
dscp = ["ef"]
[[peer]]
name = "pe2"
identity = "pe2.example"
addresses = ["192.0.2.2"]
auth = { psk_file = "pe2.psk" }
selectors = "plain"
mode = "tunnel"
encapsulation = "mpls-in-ip"
[[peer.vrf]]
name = "red"
accept = ["10.2.0.0/16"]
[peer.vrf.labels]
gold = { local = 101, peer = 201, routes = ["10.2.0.0/24"] }
standard = { local = 102, peer = 202, routes = ["10.2.0.0/24"] }
[[peer.vrf]]
name = "blue"
accept = ["10.2.0.0/16"]
labels = { local = 103, peer = 203 }
"""

SECOND_PEER = """\
[[peer]]
name = "pe3"
identity = "pe3.example"
addresses = ["192.0.2.3"]
auth = { psk_file = "pe2.psk" }
[[peer.vrf]]
name = "red"
accept = ["10.3.0.0/16"]
"""

PLAIN_IP = """\
[endpoint]
identity = "192.0.2.1"
addresses = ["192.0.2.1"]
[[vrf]]
name = "office"
attach = [{ memory = "office" }]
announce = ["10.1.0.0/24"]
[[peer]]
name = "branch"
identity = "branch@example.com"
addresses = ["any"]
auth = { psk_file = "pe2.psk" }
selectors = "plain"
mode = "tunnel"
encapsulation = "none"
[[peer.vrf]]
name = "office"
accept = ["10.2.0.0/24"]
"""

LABELLED = """\
[endpoint]
identity = "pe1.example"
addresses = ["192.0.2.1"]
front_door = { netns = "internet" }
[[vrf]]
name = "core"
announce = ["10.1.0.0/16"]
[[vrf.attach]]
mpls = "eth1"
labels = "keep"
next_hop = "172.16.1.2"
[[vrf]]
name = "red"
announce = ["10.1.0.0/16"]
[[vrf.attach]]
mpls = "red-pe"
device = "eth2"
labels = "pop"
local_labels = [301, "310-319"]
peer_label = 401
next_hop = "02:00:00:00:00:AA"
[[vrf]]
name = "blue"
announce = ["10.1.0.0/16"]
[[vrf.attach]]
mpls = "blue-pe"
device = "eth2"
labels = "pop"
local_labels = [302]
next_hop = "02:00:00:00:00:aa"
[[vrf]]
name = "green"
announce = ["10.1.0.0/16"]
[[vrf.attach]]
mpls-in-gre = "inner"
netns = "core"
labels = "keep"
tunnel = { local = "172.16.2.1", peer = "172.16.2.2" }
gre = { key = 7, checksum = true }
prefixes = ["10.1.7.0/24"]
[[peer]]
name = "pe2"
identity = "pe2.example"
addresses = ["192.0.2.2"]
auth = { psk_file = "pe2.psk" }
selectors = "plain"
[[peer.vrf]]
name = "red"
accept = ["10.2.0.0/16"]
labels = { local = 500, peer = 501, routes = ["10.2.0.0/16"] }
"""


def parse(text: str) -> Config:
    return parse_config(text, "pe1.toml", secrets={"pe2.psk": SECRET})


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as raised:
        parse(text)
    return raised.value.problems


def edited(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
    return text.replace(old, new)
