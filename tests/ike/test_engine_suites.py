"""An IKE SA, a Child SA with PFS and a rekey of both, with every group of algorithms that can be configured."""

from dataclasses import replace

import pytest

from ike import ChildSaEstablished, IkeSaEstablished, IkeSaRekeyed
from ike.proposals import format_proposal, parse_esp_proposal, parse_ike_proposal
from tests.ike.engine_kit import CHILD, new_pair

SUITES = [
    ("aes256-sha256-modp2048", "null-sha256-modp2048"),
    ("aes128-sha384-modp3072", "aes128ctr-sha384-ecp256bp"),
    ("aes192-sha512-x448", "aes256ccm16-x448"),
    ("aes128ctr-sha256-ecp384bp", "aes128gmac-modp3072"),
    ("aes256ccm16-prfsha384-ecp512bp", "aes256gcm16iiv-ecp512bp-esn"),
    ("aes128ccm8-prfaescmac-ecp521", "aes128ccm8iiv-ecp384bp"),
    ("aes128-aesxcbc-x25519", "aes128-aesxcbc-x25519"),
    ("aes128-aescmac-modp4096", "chacha20poly1305iiv-modp4096"),
    ("aes128-sha1-modp2048", "aes128-sha1"),
]


@pytest.mark.parametrize(("ike", "esp"), SUITES, ids=[suite[0] for suite in SUITES])
def test_both_sides_agree_with_every_suite(ike: str, esp: str) -> None:
    proposals: dict[str, object] = {"ike_proposals": (parse_ike_proposal(ike),)}
    pair, _ = new_pair(replace(CHILD, proposals=(parse_esp_proposal(esp),)), left=proposals, right=proposals)
    left, right = pair.left, pair.right
    pair.initiate()
    pair.run()
    assert format_proposal(left.last(IkeSaEstablished).proposal) == format_proposal(parse_ike_proposal(ike))
    left.engine.create_child(left.session, CHILD.name, pair.now)
    pair.run()
    right.engine.rekey_ike_sa(right.session, pair.now)
    pair.run()
    assert left.last(IkeSaRekeyed).spi_i == right.last(IkeSaRekeyed).spi_i
    left.engine.rekey_child(left.session, left.last(ChildSaEstablished).child.spi_in, pair.now)
    pair.run()
    ours, theirs = left.last(ChildSaEstablished).child, right.last(ChildSaEstablished).child
    assert ours.spi_in == theirs.spi_out
    assert (ours.keys_in, ours.keys_out) == (theirs.keys_out, theirs.keys_in)
    assert format_proposal(ours.proposal) == format_proposal(parse_esp_proposal(esp))
