"""The configurations of the two PEs of the demo; `pe1.toml` and `pe2.toml` as an operator would write them."""

from typing import Final

_SHARED: Final = """
[[vrf]]
name     = "red"
id       = "rd:65000:100"
classes  = ["gold", "standard"]
attach   = [{{ memory = "red-ce{own}", address = ["10.{own}.0.1/24"] }}]
announce = ["10.{own}.0.0/24"]

[[vrf]]
name     = "blue"
attach   = [{{ memory = "blue-ce{own}", address = ["10.{own}.0.1/24"] }}]
announce = ["10.{own}.0.0/24"]

[[class]]
name = "gold"
dscp = ["ef", "cs5"]
tc   = [5, 6, 7]

[[peer]]
name          = "pe{other}"
identity      = "pe{other}.example"
addresses     = ["127.0.0.1{other}"]
port          = 4500
auth          = {{ psk_file = "demo.psk" }}
ike           = ["aes256gcm16-prfsha384-x25519"]
esp           = ["aes256gcm16"]
selectors     = "native"
mode          = "transport"
encapsulation = "mpls-in-ip"
udp           = "always"
start         = "{start}"

  [[peer.vrf]]
  name    = "red"
  peer_id = "rd:65000:100"
  classes = ["gold", "standard"]
  accept  = ["10.{other}.0.0/16"]

  [[peer.vrf]]
  name    = "blue"
  accept  = ["10.{other}.0.0/16"]
"""

_ENDPOINT: Final = """
[endpoint]
identity  = "pe{own}.example"
addresses = ["127.0.0.1{own}"]
ike_port  = 0
"""

PE1: Final = (_ENDPOINT + _SHARED).format(own=1, other=2, start="boot")
PE2: Final = (_ENDPOINT + _SHARED).format(own=2, other=1, start="none")
