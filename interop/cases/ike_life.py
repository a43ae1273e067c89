"""A whole life in one case, against the versions of strongSwan: rekeys and deletes by either side under traffic.

Must not know: how our program does it. `life.py` has each of these alone, against one version.
"""

from __future__ import annotations

from typing import Any

from ..peers.container import SwanContainer
from ..processes import wait_until
from .case import OUR_ADDRESS, PEER_ADDRESS, Evidence, Lab, require
from .life import check_generations, one_child, one_ike_sa
from .running import Running, check_stream
from .strongswan import PEER_CUSTOMER, IpTunnelCase, StrongSwanCase


class WholeLife(IpTunnelCase):
    """Under a stream of pings: child and IKE SA rekeyed by both; then each deleted by one of them, and made again."""

    feature = (
        "a whole life: child and IKE SA rekeyed by either side under pings, then deleted, and made again"
    )

    def __init__(self, role: str, suite: str) -> None:
        StrongSwanCase.__init__(self, "life", role, suite)

    def drive(self, lab: Lab) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            with now.stream(facts):
                self.rekeys(now)
            now.charon.terminate(self.their_child)
            wait_until(lambda: not now.ours.children(), "no child on our side", every_s=0.05)
            facts["answers_without_child"] = now.ping(count=1, wait_s=1)
            now.ours.call("initiate", peer="pe2")
            one_child(now.charon)
            facts["answers_again"] = now.ping()
            now.ours.call("terminate", peer="pe2")
            wait_until(lambda: not now.charon.ike_sas(), "no IKE SA at the peer", every_s=0.1)
            return facts | now.facts()

    def rekeys(self, now: Running[SwanContainer]) -> None:
        child, ike = one_child(now.charon), one_ike_sa(now.charon)
        now.ours.call("rekey", peer="pe2", child=self.our_child)
        child = one_child(now.charon, child)
        now.charon.rekey(self.their_child)
        one_child(now.charon, child)
        now.charon.rekey()
        ike = one_ike_sa(now.charon, ike)
        now.ours.rekey("pe2")
        one_ike_sa(now.charon, ike)
        child = one_child(now.charon)
        now.charon.rekey(self.their_child)
        one_child(now.charon, child)

    def check(self, evidence: Evidence) -> list[str]:
        seen = [*self.check_packets(evidence), check_stream(evidence, PEER_CUSTOMER)]
        made = [child for child in evidence.children if child.is_accepted]
        began = OUR_ADDRESS if self.role == "initiator" else PEER_ADDRESS
        told = [(child.request.source, child.is_rekey) for child in made]
        expected = [
            (began, False),
            (OUR_ADDRESS, True),
            (PEER_ADDRESS, True),
            (PEER_ADDRESS, True),
            (OUR_ADDRESS, False),
        ]
        require(told == expected, f"children were made by (who, as a rekey): {told}")
        rekeys = [one.request.source for one in evidence.ike_rekeys]
        require(rekeys == [PEER_ADDRESS, OUR_ADDRESS], f"the IKE SA was rekeyed by {rekeys}")
        last = evidence.ike_rekeys[-1].spi_i
        require(
            [child.request.spi_i == last for child in made] == [False, False, False, True, True],
            "the last rekey and the last child are not of the last IKE SA",
        )
        gone = [one for one in evidence.ike if one.spi_i == last and one.deletes_ike_sa]
        require(gone and gone[0].source == OUR_ADDRESS, "we did not delete the last IKE SA")
        lone = [one for one in evidence.ike if one.spi_i == last and one.deleted_spis]
        deleted = [one.source for one in lone if made[3].spis[PEER_ADDRESS] in one.deleted_spis]
        require(PEER_ADDRESS in deleted, "the peer did not delete the child")
        for source in (OUR_ADDRESS, PEER_ADDRESS):
            check_generations(evidence, source, 5)
        answers = (evidence.fact("answers_without_child"), evidence.fact("answers_again"))
        require(answers == (0, 3), f"answers without a child, and with another: {answers}")
        return [
            *seen,
            "child rekeyed by us, by the peer, and by the peer in the last IKE SA",
            "IKE SA rekeyed by the peer, then by us; the child deleted by the peer, made by us; the IKE SA deleted",
        ]


CASES = tuple(
    WholeLife(role, suite) for suite in ("bookworm", "forky") for role in ("initiator", "responder")
)
