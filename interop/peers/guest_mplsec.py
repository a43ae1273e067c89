"""Our own program on a Linux router as a guest, whose kernel has VRF devices: run by this machine's Python, by hostfs.

Must not know: what is inside, nor who the peer is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..guests import Guest
from ..keys import KeyTables
from ..networks import Network
from ..packages import kernel_root
from ..processes import BYTECODE, LabError, wait_until
from .linux_pe import received
from .mplsec import COMMAND, in_use

MODULES = ("tun", "vrf")
HOST, SOCKET = "/host", "/run/mplsec.sock"
SHARE = "/mnt"
"""Where the guest's writable folder is for the program, which sees this machine's files, read-only."""


class GuestMplsec(Guest):
    """A router with the VRF device `front`, its card in it, and the VRF device `red` that `inside` may name.

    Where it does, the main routing table has no route at all.
    """

    def __init__(
        self, network: Network, *, folder: Path, state: Path, address: str, config: str, psk: str, inside: str
    ) -> None:
        """`address` of the card, with its length; `inside`: the VRF device of the customers, "" for the main table."""
        kernel = kernel_root()
        super().__init__(
            "pe1",
            root=kernel.ensure(),
            kernel=kernel.ensure(),
            netns=network.wire,
            taps=[network.tap("pe1")],
            share=folder,
            state=state,
            modules=MODULES,
            memory="320M",
        )
        (folder / "mplsec.toml").write_text(
            config.replace("[endpoint]\n", '[endpoint]\nstate_dir = "/run/mplsec"\n')
        )
        BYTECODE.mkdir(parents=True, exist_ok=True)
        secret = folder / "peer.psk"
        secret.touch(mode=0o600)
        secret.write_text(psk + "\n")
        self._folder, self._inside = folder, inside
        try:
            self.sh(f"""set -e
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
ip link add front type vrf table 10
ip link add red type vrf table 20
ip link set front up; ip link set red up
ip link set vec0 master front up
ip addr add {address} dev vec0
mkdir -p {HOST} {BYTECODE}
mount -t hostfs -o ro none {HOST}
mount -t hostfs -o {BYTECODE} none {BYTECODE}
for place in proc sys dev run; do mount --rbind /$place {HOST}/$place; done
mount --bind /share {HOST}{SHARE}
""")
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Run it until it answers, and put its TUN device into the VRF device, which takes its routes away."""
        self.sh(
            f"{self._command('run', f'{SHARE}/mplsec.toml', '--keys', f'{SHARE}/keys')}"
            " >/share/mplsec.log 2>&1 & echo $! >/run/mplsec.pid"
        )
        wait_until(self._is_up, "mplsec answering in the guest", timeout_s=40, every_s=0.3)
        if self._inside:
            self.sh(
                f"ip link set red0 master {self._inside}; ip route add vrf {self._inside} 10.2.0.0/24 dev red0"
            )

    def _is_up(self) -> bool:
        script = f"[ -e /proc/$(cat /run/mplsec.pid)/exe ] || echo gone; [ -S {SOCKET} ] && echo up"
        said = self.sh(script, check=False)
        if "gone" in said:
            raise LabError(f"mplsec in the guest: {(self._folder / 'mplsec.log').read_text()[-2000:]}")
        return "up" in said

    def _command(self, *arguments: str) -> str:
        words = " ".join(arguments)
        return f"PYTHONPYCACHEPREFIX={BYTECODE} chroot {HOST} {COMMAND} {words} --control {SOCKET}"

    def initiate(self, peer: str) -> str:
        return self.sh(self._command("initiate", peer), timeout_s=45)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.sh(self._command("status", "--json"), timeout_s=30))
        return document

    def children(self) -> list[dict[str, Any]]:
        return in_use(self.status())

    def keys(self) -> KeyTables:
        return KeyTables.read(self._folder / "keys")

    def end(self) -> str:
        """SIGTERM; its exit code and what of its devices is left."""
        return self.sh(
            "pid=$(cat /run/mplsec.pid); kill $pid; while [ -e /proc/$pid/exe ]; do sleep 0.1; done; ip -br link",
            timeout_s=20,
        )

    def ping(self, address: str, *, count: int, source: str) -> int:
        """Ping from the inside; how many answers came."""
        device = f"-I {self._inside} " if self._inside else ""
        options = f"{device}-I {source} -c {count} -l {count} -W 5"
        return received(self.sh(f"ping {options} {address}", check=False, timeout_s=20))
