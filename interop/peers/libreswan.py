"""libreswan's pluto on any machine of the lab: configured, started, asked; its SAs' keys read from its kernel.

Must not know: whether the machine is a container or a guest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..keys import EspKey
from ..processes import LabError, tail_of, wait_until
from .strongswan import Machine

RUN = "/run/pluto"
WHACK = f"ipsec whack --rundir {RUN}"


@dataclass(frozen=True)
class Conn:
    """A connection with a pre-shared key, in libreswan's words (ipsec.conf); `more`: one setting an entry."""

    local_address: str
    remote_address: str
    local_id: str
    remote_id: str
    psk: str
    more: tuple[str, ...]

    def text(self) -> str:
        settings = (
            f"left={self.local_address}",
            f"right={self.remote_address}",
            f"leftid=@{self.local_id}",
            f"rightid=@{self.remote_id}",
            *("authby=secret", "keyexchange=ikev2", "ike=aes_gcm256-sha2_384-dh31", "esp=aes_gcm256-none"),
            *("leftupdown=%disabled", "auto=add"),
            *self.more,
        )
        lines = "".join(f"    {setting}\n" for setting in settings)
        return f"config setup\n    dnssec-enable=no\nconn peer\n{lines}"


class Libreswan:
    """pluto on a machine, started with a connection."""

    def __init__(self, machine: Machine, conn: Conn, *, prepare: str = "") -> None:
        """`prepare`: a script that runs when the key store /run/nss is there."""
        self.machine = machine
        self.log = machine.share / "pluto.log"
        (machine.share / "ipsec.conf").write_text(conn.text())
        secrets = machine.share / "ipsec.secrets"
        secrets.write_text(f'@{conn.local_id} @{conn.remote_id} : PSK "{conn.psk}"\n')
        machine.sh(f"""mkdir -p /run/nss {RUN} /run/ipsec.d
ipsec initnss --nssdir /run/nss >/dev/null
{prepare}""")
        self.start()

    def start(self) -> None:
        """Run pluto and hand it the configuration."""
        self.machine.sh(f"""setsid /usr/libexec/ipsec/pluto --config /share/ipsec.conf \\
  --secretsfile /share/ipsec.secrets --nssdir /run/nss --rundir {RUN} --ipsecdir /run/ipsec.d \\
  --logfile /share/pluto.log --nofork >>/share/pluto.out 2>&1 </dev/null &
""")
        try:
            wait_until(self._is_loaded, f"pluto on {self.machine.name} taking its configuration", every_s=0.2)
        except LabError as error:
            raise LabError(f"{error}\n{tail_of(self.log)}") from error

    def restart(self) -> None:
        """As after a crash: no SA is left, here or in the kernel, and nobody is told."""
        self.machine.sh(f"""pid=$(cat {RUN}/pluto.pid); kill -9 $pid; while [ -e /proc/$pid/exe ]; do sleep 0.05; done
rm -f {RUN}/pluto.pid {RUN}/pluto.ctl
ip xfrm state flush; ip xfrm policy flush""")
        self.start()

    @property
    def version(self) -> str:
        """What the running daemon wrote of itself."""
        found = re.search(r"Libreswan Version (\S+)", self.log.read_text(errors="replace"))
        if not found:
            raise LabError("pluto does not tell its version")
        return f"libreswan {found[1]}"

    def initiate(self, *, check: bool = True) -> str:
        return self.machine.sh(f"{WHACK} --initiate --name peer", check=check, timeout_s=20)

    def rekey_child(self) -> str:
        return self.machine.sh(f"{WHACK} --rekey-child --name peer", check=False, timeout_s=20)

    def rekey_ike(self) -> str:
        return self.machine.sh(f"{WHACK} --rekey-ike --name peer", check=False, timeout_s=20)

    def terminate(self) -> str:
        return self.machine.sh(f"{WHACK} --terminate --name peer", check=False, timeout_s=20)

    def states(self) -> str:
        """Its SAs, as `whack --showstates` tells them."""
        return self.machine.sh(f"{WHACK} --showstates", check=False)

    def esp_keys(self) -> tuple[EspKey, ...]:
        """The keys of all Child SAs, from the kernel."""
        return esp_keys_of(self.machine.sh("ip xfrm state"))

    def _is_loaded(self) -> bool:
        """Whether it has the connection: asked of itself, since its log may be that of an earlier start."""
        said = self.machine.sh(
            f"ipsec add --config /share/ipsec.conf --rundir {RUN} peer 2>&1; {WHACK} --status", check=False
        )
        return '"peer"' in said


def esp_keys_of(text: str) -> tuple[EspKey, ...]:
    """AEAD keys in `ip xfrm state`."""
    pattern = (
        r"^src (\S+) dst (\S+)\s+proto esp spi 0x([0-9a-f]+).*?\n\s+aead rfc4106\(gcm\(aes\)\) 0x([0-9a-f]+)"
    )
    entries = re.split(r"^(?=src )", text, flags=re.MULTILINE)
    found = (re.search(pattern, entry, re.DOTALL) for entry in entries)
    return tuple(EspKey(one[1], one[2], int(one[3], 16), bytes.fromhex(one[4])) for one in found if one)
