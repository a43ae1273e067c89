"""Cases against libreswan: complete on a Linux PE; in a container, where the kernel has no ESP, the IKE SA.

Must not know: how our program does it. pluto keeps its IKE keys to itself: the IKE messages are opened with ours;
the ESP keys are those of its kernel.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from ..capture import Capture
from ..containers import Container
from ..keys import KeyTables
from ..packages import kernel_root, libreswan_root
from ..peers.libreswan import Conn, Libreswan
from ..peers.linux_pe import LinuxPe, received
from ..peers.mplsec import Mplsec
from ..processes import run, wait_until
from ..wire import AUTH, IKE_AUTH, NO_PROPOSAL_CHOSEN
from .case import (
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    PINGS,
    PSK,
    Case,
    Evidence,
    Lab,
    check_initiator,
    require,
)
from .linux_pe import PEER_CUSTOMER, LinuxPeCase

SHARED_KEY = 2
NAMES = (PEER_ADDRESS, OUR_ADDRESS, "pe2.example", "pe1.example", PSK)


class LibreswanPe(LinuxPeCase):
    """MPLS-in-IP in transport mode with extended sequence numbers."""

    has_esn = True

    def __init__(self, role: str) -> None:
        super().__init__("mpls-in-ip", False, role)
        self.peer, self.roots = "linux-pe-libreswan", (kernel_root(), libreswan_root())
        self.name = f"libreswan-mpls-in-ip-{role}"
        self.feature = "mpls-in-ip in transport mode, raw ESP with ESN"

    def config(self, red: str) -> str:
        return super().config(red).replace('esp = ["aes256gcm16"]', 'esp = ["aes256gcm16-x25519-esn"]')

    def drive(self, lab: Lab) -> dict[str, Any]:
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            front_door, red = network.host("pe1", f"{OUR_ADDRESS}/24"), network.namespace("red")
            linux = LinuxPe(
                network,
                folder=lab.folder / "pe2",
                state=lab.state,
                encapsulation=self.encapsulation,
                programs=libreswan_root(),
            )
            stack.enter_context(linux)
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge))
            protocol = (
                "type=transport",
                "leftprotoport=137",
                "rightprotoport=137",
                "esn=yes",
                "replay-window=128",
            )
            pluto = Libreswan(linux, Conn(*NAMES, more=protocol))
            ours = Mplsec(lab.folder / "pe1", self.config(red), PSK, netns=front_door, state=lab.state)
            stack.enter_context(ours)
            if self.role == "initiator":
                ours.initiate("pe2")
            else:
                pluto.initiate()
            wait_until(lambda: len(pluto.esp_keys()) == 2, "two SAs in the kernel", every_s=0.2)
            ping = ["ping", "-c", str(PINGS), "-l", str(PINGS), "-W", "5", "-I", OUR_CUSTOMER, PEER_CUSTOMER]
            answers = {
                "answers_to_us": received(run(ping, netns=red, check=False).stdout),
                "answers_to_peer": linux.ping(OUR_CUSTOMER, count=PINGS),
            }
            own, kernel = ours.keys(), pluto.esp_keys()
            KeyTables(own.ike, kernel).write(lab.keys)
            return answers | {
                "peer_version": f"Linux {linux.kernel_version}, {pluto.version}",
                "keys_agree": KeyTables(own.ike, kernel).agrees_with(own),
                "esn_sas": linux.sh("ip xfrm state").count("flag esn"),
                "kernel_sas": [asdict(state) for state in linux.xfrm_states()],
                "kernel_errors": linux.xfrm_errors(),
                "our_version": ours.version,
                "our_status": ours.status(),
            }

    def check(self, evidence: Evidence) -> list[str]:
        seen = super().check(evidence)
        require(evidence.fact("esn_sas") == 2, "the kernel's SAs are without ESN")
        return [*seen, "both SAs of the kernel with extended sequence numbers"]


class LibreswanIke(Case):
    """The IKE SA comes up by pre-shared key; a child cannot, and does not take it down; then we delete it.

    Where we begin, the peer wants another key exchange for a child than we offer. Where it begins, its kernel has no
    ESP, so it deletes the child that we made.
    """

    peer = "libreswan"
    roots = (libreswan_root(),)
    feature = "IKE SA by pre-shared key; it outlives the child that cannot be, and is deleted by us"

    def __init__(self, role: str) -> None:
        self.role = role
        self.name = f"libreswan-ike-{role}"

    def config(self, red: str) -> str:
        return f"""
[endpoint]
identity = "pe1.example"
addresses = ["{OUR_ADDRESS}"]

[[vrf]]
name = "red"
attach = [{{ tun = "red0", netns = "{red}", address = ["{OUR_CUSTOMER}/24"] }}]
announce = ["10.1.0.0/24"]

[[peer]]
name = "pe2"
identity = "pe2.example"
addresses = ["{PEER_ADDRESS}"]
auth = {{ psk_file = "peer.psk" }}
ike = ["aes256gcm16-prfsha384-x25519"]
esp = ["aes256gcm16"]
mode = "tunnel"
start = "none"
selectors = "plain"
encapsulation = "none"

[[peer.vrf]]
name = "red"
accept = ["10.2.0.0/24"]
"""

    def connection(self, more: tuple[str, ...]) -> Conn:
        """The connection that pluto knows."""
        return Conn(*NAMES, more)

    def prepare(self, lab: Lab) -> str:
        """Files of both sides; a script for what the peer needs in its key store."""
        return ""

    def live(self, ours: Mplsec, pluto: Libreswan) -> dict[str, Any]:
        """What happens after the IKE SA is up; facts."""
        return {}

    def drive(self, lab: Lab) -> dict[str, Any]:
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            front_door, red = network.host("pe1", f"{OUR_ADDRESS}/24"), network.namespace("red")
            container = Container(
                lab.daemon,
                f"{lab.prefix}libreswan",
                root=libreswan_root(),
                share=lab.folder / "pe2",
                command=["sleep", "infinity"],
            )
            stack.enter_context(container)
            network.plug(network.adopt("libreswan", container.pid), "libreswan", f"{PEER_ADDRESS}/24")
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge))
            subnets = ("leftsubnet=10.2.0.0/24", "rightsubnet=10.1.0.0/24")
            pluto = Libreswan(container, self.connection(subnets), prepare=self.prepare(lab))
            ours = Mplsec(lab.folder / "pe1", self.config(red), PSK, netns=front_door, state=lab.state)
            stack.enter_context(ours)
            if self.role == "initiator":
                said = ours.try_to_initiate("pe2")
            else:
                said = pluto.initiate(check=False)
            states = pluto.states()
            sas = ours.ike_sas()
            more = self.live(ours, pluto)
            ours.keys().write(lab.keys)
            return more | {
                "peer_version": pluto.version,
                "said": said,
                "peer_states": states,
                "our_ike_sas": sas,
                "our_version": ours.version,
            }

    def check(self, evidence: Evidence) -> list[str]:
        seen = [check_initiator(evidence, self.role)]
        auth = [one for one in evidence.ike if one.exchange == IKE_AUTH]
        proven = {
            one.source for one in auth if (proof := one.payload(AUTH)) and proof.octets[4] == SHARED_KEY
        }
        require(proven == {OUR_ADDRESS, PEER_ADDRESS}, f"a secret is proved by {sorted(proven)}")
        states = evidence.fact("peer_states")
        require("ESTABLISHED_IKE_SA" in states, f"the peer's SAs: {states}")
        require("ESTABLISHED_CHILD_SA" not in states and not evidence.esp, "there is a child")
        (ours,) = evidence.fact("our_ike_sas")
        require((ours["state"], ours["role"]) == ("established", self.role), f"our IKE SA: {ours}")
        if self.role == "initiator":
            refused = [one for one in evidence.children if NO_PROPOSAL_CHOSEN in one.response.notifies]
            require(refused and "NO_PROPOSAL_CHOSEN" in evidence.fact("said"), "no child was refused")
            seen.append(f"we say: {evidence.fact('said').strip()}")
        else:
            given_back = [one for one in evidence.ike if one.source == PEER_ADDRESS and one.deleted_spis]
            require(given_back, "the peer did not delete the child that its kernel cannot have")
            seen.append(f"the peer's Delete for its child in frame {given_back[0].packet.number}")
        last = [one for one in evidence.ike if one.spi_i == ours["spi_i"]][-2:]
        require(last[0].source == OUR_ADDRESS and last[0].deletes_ike_sa, "we did not delete the IKE SA")
        require(last[1].is_response and last[1].source == PEER_ADDRESS, "the peer did not answer our Delete")
        return [*seen, "the IKE SA stays without a child; our Delete of it is answered"]


ROLES = ("initiator", "responder")
CASES: tuple[LibreswanIke | LibreswanPe, ...] = (
    *(LibreswanIke(role) for role in ROLES),
    *(LibreswanPe(role) for role in ROLES),
)
