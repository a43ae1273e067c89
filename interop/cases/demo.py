"""`mplsec demo` on a real loopback, with tcpdump and tshark as the referees: native selectors, labels inside ESP.

Must not know: what the demo says of itself beyond its JSON document.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..capture import Capture
from ..peers.mplsec import COMMAND
from ..processes import run
from ..wire import CREATE_CHILD_SA, MPLS_IN_IP, TSI, TSR
from .case import Case, Evidence, Lab, check_decrypted, require

TS_MPLS_VRF = 246
VENDOR_ID = "e7f5947c719b26d8336964af13f4942e01"
PE1, PE2 = "127.0.0.11", "127.0.0.12"


class Demo(Case):
    """Two PEs of ours in one process; what they claim must be what went over the wire."""

    name = "demo-seen-by-tshark"
    feature = "TS 246 for each (VRF, class), MPLS-in-IP inside ESP, a label for each, rekey under traffic"
    peer = "tshark"
    role = "initiator"
    roots = ()
    needs_docker = False

    def drive(self, lab: Lab) -> dict[str, Any]:
        keys = lab.folder / "demo-keys"
        with lab.network(self.topology) as network:
            host = network.namespace("demo")
            with Capture(lab.capture, netns=host, interface="lo"):
                capture = lab.folder / "own.pcapng"
                argv: list[str | Path] = [COMMAND, "demo", "--json", "--capture", capture, "--keys", keys]
                done = run(argv, netns=host, timeout_s=60)
        # The keys that the demo exported open the capture, in the place where the decoder looks for them.
        shutil.copytree(keys, lab.keys, dirs_exist_ok=True)
        version = run(["tshark", "--version"]).stdout.splitlines()[0].partition(" (Git")[0]
        document = json.loads(done.stdout)
        return {"peer_version": version, "demo": {name: document[name] for name in ("steps", "counters")}}

    def check(self, evidence: Evidence) -> list[str]:
        document = evidence.fact("demo")
        require(all(step["ok"] for step in document["steps"]), "a step of the demo failed")
        seen = [check_decrypted(evidence)]
        require({packet.source for packet in evidence.esp} == {PE1, PE2}, "ESP is not between the two PEs")
        headers = {packet.next_header for packet in evidence.esp}
        require(headers == {MPLS_IN_IP}, f"ESP next headers are {headers}, not 137 alone")
        offers = {
            message.source
            for message in evidence.ike
            for payload in message.payloads
            if payload.octets[4:].hex() == VENDOR_ID
        }
        require(offers == {PE1, PE2}, "not both sent the Vendor ID")
        made = [
            one for one in evidence.children if one.request.exchange == CREATE_CHILD_SA and one.is_accepted
        ]
        new = [one for one in made if not one.is_rekey]
        require(len(new) == 3, f"{len(new)} new children in CREATE_CHILD_SA, not 3")
        require(len(made) == 4, "not one child was rekeyed")
        maps = set()
        for one in new:
            for kind in (TSI, TSR):
                payload = one.response.payload(kind)
                require(
                    payload is not None and bytes([TS_MPLS_VRF, 0]) in payload.octets, "no TS of type 246"
                )
                if payload is not None:
                    maps.add(payload.octets[payload.octets.rindex(bytes([TS_MPLS_VRF, 0])) :])
        require(len(maps) == 3, "the three children have not three different maps")
        # Three (VRF, class) at pe2, a label for each.
        labels: dict[int, set[int]] = {}
        for packet in evidence.esp:
            require(packet.labels and packet.labels[-1][1] == 1, f"no label stack that ends: {packet}")
            label = packet.labels[0][0]
            if label is not None and packet.source == PE1:
                labels.setdefault(label, set()).add(packet.spi)
        require(len(labels) == 3, f"labels toward pe2: {sorted(labels)}, not three")
        seen.append(f"{len(new)} children with TS 246, labels toward pe2 {sorted(labels)}")
        return seen


CASES: tuple[Case, ...] = (Demo(),)
