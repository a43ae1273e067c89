"""strongSwan in a container: ESP in its own process (kernel-libipsec), so only tunnel mode over UDP.

Must not know: what the other side is.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ..containers import Container, ContainerDaemon
from ..networks import Network, ip
from ..packages import strongswan_root
from ..processes import LabError, wait_until
from .linux_pe import received
from .strongswan import Connection, StrongSwan

HOST_SCRIPT = Path(__file__).with_name("mpls_host.py")
PLUGINS = (
    "load = random nonce openssl kdf pem pkcs1 pkcs8 pubkey x509 constraints "
    "kernel-libipsec kernel-netlink socket-default updown vici"
)


class SwanContainer(Container):
    """strongSwan of a Debian suite at 192.0.2.2, and 2001:db8:c::2 where the network has IPv6.

    On its loopback: the customer 10.2.0.1, and 10.255.0.2, where MPLS-in-IP inside the IPsec tunnel ends.
    """

    address, address_ipv6 = "192.0.2.2", "2001:db8:c::2"
    customer = "10.2.0.1"
    tunnel_end = "10.255.0.2"

    def __init__(self, daemon: ContainerDaemon, network: Network, *, folder: Path, suite: str) -> None:
        self.network = network
        super().__init__(
            daemon,
            f"{network.prefix}swan-{suite}",
            root=strongswan_root(suite),
            share=folder,
            command=["sleep", "infinity"],
        )
        try:
            namespace = network.adopt(f"swan-{suite}", self.pid)
            addresses = [f"{self.address}/24", *([f"{self.address_ipv6}/64"] if network.has_ipv6 else [])]
            network.plug(namespace, "swan", *addresses)
            for inside in (f"{self.customer}/24", f"{self.tunnel_end}/32"):
                ip("addr", "add", inside, "dev", "lo", netns=namespace)
        except BaseException:
            self.__exit__()
            raise

    def start_strongswan(self, connection: Connection, *others: Connection, settings: str = "") -> StrongSwan:
        """`others`: connections beside it; `settings`: more lines of strongswan.conf for charon."""
        return StrongSwan(self, connection, plugins=f"{PLUGINS}\n  {settings}", others=others)

    def answer_mpls(self, *, peer: str, labels: dict[int, int]) -> None:
        """Start a PE's customer: pings inside protocol 137 are answered; `labels`: arriving to leaving."""
        script = shutil.copy(HOST_SCRIPT, self.share)
        log = self.share / "mpls_host.log"
        pairs = " ".join(f"{arriving}={leaving}" for arriving, leaving in labels.items())
        command = (
            f"python3 /share/{Path(script).name} answer {self.tunnel_end} {peer} {self.customer} {pairs}"
        )
        self.sh(f"setsid {command} >/share/{log.name} 2>&1 </dev/null &")

        def is_ready() -> bool:
            text = log.read_text() if log.exists() else ""
            if "Error" in text:
                raise LabError(text)
            return "ready" in text

        wait_until(is_ready, "the MPLS host in the container", timeout_s=10)

    def ping_mpls(self, *, peer: str, label: int, target: str, count: int = 3) -> int:
        """Ping `target` from the customer inside protocol 137 with `label`; how many answers came."""
        shutil.copy(HOST_SCRIPT, self.share)
        arguments = f"ping {self.tunnel_end} {peer} {self.customer} {label} {target} {count}"
        return received(self.sh(f"python3 /share/{HOST_SCRIPT.name} {arguments}", timeout_s=count * 3 + 5))

    def ping(self, address: str, *, count: int = 3, source: str = "", more: str = "") -> int:
        """Ping from the customer; how many answers came. `more`: further options of ping."""
        options = f"{more} -c {count} -l {count} -W 5 -I {source or self.customer}"
        return received(self.sh(f"ping {options} {address}", check=False, timeout_s=20))
