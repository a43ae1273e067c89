"""`encapsulation = "none"`: the prefixes are all that tells two VRFs of one peer apart."""

import pytest

from endpoint.config import ConfigError, parse_config

TEXT = """
[endpoint]
identity  = "pe1.example"
addresses = ["192.0.2.1"]

[[vrf]]
name     = "red"
attach   = [{{ memory = "red", address = ["10.1.0.1/24"] }}]
announce = ["10.1.0.0/24"]

[[vrf]]
name     = "blue"
attach   = [{{ memory = "blue", address = ["{blue}.1/24"] }}]
announce = ["{blue}.0/24"]

[[peer]]
name          = "pe2"
identity      = "pe2.example"
addresses     = ["192.0.2.2"]
auth          = {{ psk_file = "psk" }}
ike           = ["aes256gcm16-prfsha384-x25519"]
esp           = ["aes256gcm16"]
selectors     = "plain"
mode          = "tunnel"
encapsulation = "none"

  [[peer.vrf]]
  name   = "red"
  accept = ["10.2.0.0/16"]

  [[peer.vrf]]
  name   = "blue"
  accept = ["10.2.7.0/24"]
"""


def test_two_vrfs_whose_selectors_meet_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(TEXT.format(blue="10.1.0"), "pe1.toml", secrets={"psk": b"0123456789abcdef0123"})
    (problem,) = error.value.problems
    assert TEXT.splitlines()[problem.line - 1].strip() == 'accept = ["10.2.7.0/24"]'
    assert "same selectors" in problem.message and problem.remedy


def test_two_vrfs_with_prefixes_of_their_own_are_accepted() -> None:
    assert parse_config(TEXT.format(blue="10.3.0"), "pe1.toml", secrets={"psk": b"0123456789abcdef0123"})
