"""The octet budget of a tunnel."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpls.encapsulation import Encapsulation, Mode
from mpls.mtu import Budget, budget


def gcm(link_mtu: int = 1500, **changes: Any) -> Budget:
    fields: dict[str, Any] = {
        "ipv6_underlay": False,
        "udp_encapsulation": False,
        "iv_octets": 8,
        "icv_octets": 16,
        "block_octets": 4,
        "encapsulation": Encapsulation.MPLS_IN_IP,
        "mode": Mode.TRANSPORT,
    }
    return budget(link_mtu, **{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "tunnel_mtu", "vrf_mtu"),
    [
        ({}, 1446, 1442),  # 1500 - 20 - 8 - 8 - 16 = 1448, less the trailer
        ({"udp_encapsulation": True}, 1438, 1434),
        ({"ipv6_underlay": True}, 1426, 1422),
        ({"encapsulation": Encapsulation.MPLS_IN_GRE}, 1442, 1438),
        ({"encapsulation": Encapsulation.MPLS_IN_UDP}, 1438, 1434),
        ({"mode": Mode.TUNNEL}, 1426, 1422),
        ({"mode": Mode.TUNNEL, "ipv6_inner": True}, 1406, 1402),
        ({"mode": Mode.TUNNEL, "encapsulation": Encapsulation.NONE}, 1446, 1446),
        ({"labels": 3}, 1446, 1434),
        ({"block_octets": 16, "iv_octets": 16}, 1438, 1434),  # 1440 sealed, a whole number of blocks
        ({"block_octets": 1, "icv_octets": 15}, 1446, 1442),  # 1449 sealed: ESP itself wants 4 octets
    ],
)
def test_tunnel_mtu_counts_every_octet(changes: dict[str, Any], tunnel_mtu: int, vrf_mtu: int) -> None:
    made = gcm(**changes)
    assert (made.tunnel_mtu, made.vrf_mtu, made.overhead) == (tunnel_mtu, vrf_mtu, 1500 - vrf_mtu)


@given(
    st.integers(576, 9000),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(8, 16, 4), (8, 8, 4), (16, 16, 16), (16, 32, 16)]),
    st.sampled_from([(kind, mode) for kind in Encapsulation for mode in Mode][:-2]),
    st.integers(1, 16),
)
def test_full_packet_fits_and_one_octet_more_does_not(
    link_mtu: int,
    ipv6: bool,
    udp: bool,
    sizes: tuple[int, int, int],
    kind_and_mode: tuple[Encapsulation, Mode],
    labels: int,
) -> None:
    iv, icv, block = sizes
    made = budget(
        link_mtu,
        ipv6_underlay=ipv6,
        udp_encapsulation=udp,
        iv_octets=iv,
        icv_octets=icv,
        block_octets=block,
        encapsulation=kind_and_mode[0],
        mode=kind_and_mode[1],
        labels=labels,
    )
    assert sum(octets for _, octets in made.rows()) == link_mtu

    def on_the_link(vrf_packet: int) -> int:
        sealed = made.inner_ip + made.shim + made.labels + vrf_packet + 2
        sealed += -sealed % block
        return made.outer_ip + made.udp + 8 + iv + sealed + icv

    assert on_the_link(made.vrf_mtu) <= link_mtu < on_the_link(made.vrf_mtu + 1)


def test_link_too_small_for_anything_is_refused() -> None:
    assert gcm(60).vrf_mtu == 2
    for link_mtu in (0, 56, 59):
        with pytest.raises(ValueError, match="leaves nothing"):
            gcm(link_mtu)
