"""strongSwan's charon on any machine of the lab: configured, started, asked, its keys read from its log.

Must not know: whether the machine is a container or a guest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..keys import EspKey, IkeKeys, KeyTables
from ..processes import LabError, tail_of, wait_until

# With Debian's default set, charon dies in the guest and swanctl takes 16 s to start: only what a PSK needs.
FEW_PLUGINS = (
    "random nonce openssl aes sha2 hmac kdf gcm curve25519 pem pkcs1 pubkey x509 constraints "
    "kernel-netlink socket-default vici"
)
SUITE = "aes256gcm16-prfsha384-x25519"
CONTROL = "/run/charon.vici"
SETTINGS = "STRONGSWAN_CONF=/share/strongswan.conf"


class Machine(Protocol):
    """Where a program runs: a `Guest` or a `Container`."""

    name: str
    share: Path

    def sh(self, script: str, *, timeout_s: int = 30, check: bool = True) -> str: ...


@dataclass(frozen=True)
class Child:
    """A child of a connection, in strongSwan's words (swanctl.conf)."""

    name: str
    local_ts: str
    remote_ts: str
    mode: str = "transport"
    label: str | None = None
    esp_proposals: str = "aes256gcm16-x25519,aes256gcm16"
    more: tuple[str, ...] = ()
    """Further settings, one an entry."""

    def text(self) -> str:
        label = f"label = {self.label}\n      label_mode = simple\n      " if self.label else ""
        more = "".join(f"{setting}\n      " for setting in self.more)
        return f"""{self.name} {{
      mode = {self.mode}
      local_ts = {self.local_ts}
      remote_ts = {self.remote_ts}
      {label}{more}esp_proposals = {self.esp_proposals}
    }}"""


@dataclass(frozen=True)
class Connection:
    """A connection with a pre-shared key between two addresses."""

    local_address: str
    remote_address: str
    local_id: str
    remote_id: str
    psk: str
    children: tuple[Child, ...]
    encap: bool = False
    proposals: str = SUITE
    more: tuple[str, ...] = ()
    """Further settings, one an entry."""
    name: str = "peer"

    def text(self) -> str:
        """swanctl.conf. One setting a line: 5.9 does not take more."""
        children = "\n    ".join(child.text() for child in self.children)
        more = "".join(f"  {setting}\n" for setting in self.more)
        return f"""connections {{ {self.name} {{
  version = 2
  local_addrs = {self.local_address}
  remote_addrs = {self.remote_address}
  proposals = {self.proposals}
  encap = {"yes" if self.encap else "no"}
{more}  local {{
    auth = psk
    id = {self.local_id}
  }}
  remote {{
    auth = psk
    id = {self.remote_id}
  }}
  children {{
    {children}
  }}
}} }}
secrets {{ ike-{self.name} {{
  id-1 = {self.local_id}
  id-2 = {self.remote_id}
  secret = "{self.psk}"
}} }}
"""


def daemon_configuration(plugins: str, *, logs_keys: bool = True) -> str:
    """strongswan.conf: the key material goes to the log, which is the lab's independent source of keys."""
    levels = "ike = 4\n    chd = 4\n    cfg = 2\n    knl = 2\n    mgr = 2" if logs_keys else "default = 1"
    return f"""charon {{
  {plugins}
  filelog {{ log {{
    path = /share/charon.log
    append = yes
    flush_line = yes
    default = 1
    {levels}
  }} }}
}}
swanctl {{ load = random openssl pem pkcs1 pkcs8 pubkey x509 }}
"""


class StrongSwan:
    """charon on a machine, started with a connection. `plugins` is what strongswan.conf says about them.

    `others`: connections beside it, with names of their own.
    `logs_keys` False: its log is that of ordinary use, and `keys` finds none.
    """

    def __init__(
        self,
        machine: Machine,
        connection: Connection,
        *,
        plugins: str = f"load = {FEW_PLUGINS}",
        logs_keys: bool = True,
        others: tuple[Connection, ...] = (),
    ) -> None:
        self.machine = machine
        self.connection = connection
        self.log = machine.share / "charon.log"
        (machine.share / "strongswan.conf").write_text(daemon_configuration(plugins, logs_keys=logs_keys))
        self._others = others
        self._write()
        self.start()

    @property
    def version(self) -> str:
        """What the running daemon wrote of itself."""
        found = re.search(
            r"Starting IKE charon daemon \(strongSwan ([^ ,]+)", self.log.read_text(errors="replace")
        )
        if not found:
            raise LabError("charon does not tell its version")
        return f"strongSwan {found[1]}"

    def initiate(self, child: str, *, timeout_s: int = 15) -> str:
        """Start a child; `CommandError` when it does not come up. Returns what was reported."""
        return self._swanctl(f"--initiate --child {child} --timeout {timeout_s}", timeout_s=timeout_s + 5)

    def try_to_initiate(self, child: str) -> str:
        """The same, when it is expected to be refused: what was reported, whatever the outcome."""
        return self._swanctl(f"--initiate --child {child} --timeout 10", check=False)

    def rekey(self, child: str | None = None) -> str:
        """Rekey a child, or without a name the IKE SA; it only begins."""
        return self._swanctl(f"--rekey --child {child}" if child else "--rekey --ike peer")

    def terminate(self, child: str | None = None, *, ike: str = "peer") -> str:
        """Delete a child, or without a name the IKE SA of the connection `ike`, and wait for the answer."""
        what = f"--child {child}" if child else f"--ike {ike}"
        return self._swanctl(f"--terminate {what} --timeout 10")

    def forget(self) -> None:
        """Drop every IKE SA, whether the other end answers or not."""
        self._swanctl("--terminate --ike peer --force --timeout 1", check=False)

    def start(self) -> None:
        """Run charon and hand it the configuration."""
        self.machine.sh(f"""{SETTINGS} setsid /usr/lib/ipsec/charon >>/share/charon.out 2>&1 &
for _ in $(seq 100); do [ -S {CONTROL} ] && break; sleep 0.05; done""")
        self._load()

    def reconfigure(self, connection: Connection) -> None:
        """Another configuration for what is begun from now on; SAs that are up stay as they are."""
        self.connection = connection
        self._write()
        self._load()

    def kill(self) -> None:
        """End charon as a crash does, and wait until it is gone (a zombie has no `exe`)."""
        self.machine.sh(
            "pid=$(cat /run/charon.pid); kill -9 $pid; while [ -e /proc/$pid/exe ]; do sleep 0.05; done\n"
            f"rm -f /run/charon.pid {CONTROL}"
        )

    def ike_sas(self) -> list[dict[str, object]]:
        """The IKE SAs with their `child-sas`, in the words of charon's own control protocol."""
        return parse_sas(self._swanctl("--list-sas --raw"))

    def child_sas(self) -> list[dict[str, object]]:
        """All Child SAs that are INSTALLED."""
        return installed(self.ike_sas())

    def wait_for_children(self, count: int, *, timeout_s: float = 20) -> list[dict[str, object]]:
        """Wait until `count` Child SAs are INSTALLED."""

        def enough() -> list[dict[str, object]] | None:
            sas = self.child_sas()
            return sas if len(sas) >= count else None

        return wait_until(
            enough, f"{count} Child SAs INSTALLED on {self.machine.name}", timeout_s=timeout_s, every_s=0.2
        )

    def keys(self) -> KeyTables:
        """The keys of all SAs, from charon's own log."""
        return keys_from_log(self.log.read_text(errors="replace"))

    def secrets(self) -> set[bytes]:
        """Every key that charon derived, of whatever algorithm, from its own log."""
        return secrets_from_log(self.log.read_text(errors="replace"))

    def _write(self) -> None:
        text = "".join(one.text() for one in (self.connection, *self._others))
        (self.machine.share / "swanctl.conf").write_text(text)

    def _swanctl(self, arguments: str, *, timeout_s: int = 30, check: bool = True) -> str:
        return self.machine.sh(f"{SETTINGS} swanctl {arguments}", timeout_s=timeout_s, check=check)

    def _load(self) -> None:
        """Hand the configuration over as soon as charon listens."""
        answers: list[str] = []

        def is_loaded() -> bool:
            answers.append(self._swanctl("--load-all --noprompt --file /share/swanctl.conf", check=False))
            return "successfully loaded" in answers[-1]

        try:
            wait_until(is_loaded, f"charon on {self.machine.name} taking its configuration", every_s=0.1)
        except LabError as error:
            raise LabError(f"{error}\n{answers[-1]}\n{tail_of(self.log)}") from error


def installed(ike_sas: list[dict[str, object]]) -> list[dict[str, object]]:
    """The Child SAs of IKE SAs that are INSTALLED."""
    children = [ike.get("child-sas") for ike in ike_sas]
    found = [child for tree in children if isinstance(tree, dict) for child in tree.values()]
    return [child for child in found if child.get("state") == "INSTALLED"]


def parse_sas(raw: str) -> list[dict[str, object]]:
    """`swanctl --list-sas --raw` as dictionaries: `name {key=value … name {…} … name=[a b]}`."""
    sas: list[dict[str, object]] = []
    for line in raw.splitlines():
        prefix, found, body = line.partition("list-sa event ")
        if found and not prefix:
            words = re.findall(r"[^\s{}=]+=\[[^\n]*?\](?=[\s}])|[^\s{}]+|[{}]", body)
            tree, _ = _parse_section(words, 1)
            sas += [sa for sa in tree.values() if isinstance(sa, dict)]
    return sas


def _parse_section(words: list[str], at: int) -> tuple[dict[str, object], int]:
    section: dict[str, object] = {}
    while at < len(words) and words[at] != "}":
        word = words[at]
        if words[at + 1 : at + 2] == ["{"]:
            section[word], at = _parse_section(words, at + 2)
            continue
        key, _, value = word.partition("=")
        section[key] = value[1:-1].split() if value.startswith("[") else value
        at += 1
    return section, at + 1


def keys_from_log(log: str) -> KeyTables:
    """IKE and ESP keys (AES-GCM) from a charon log written with ike = 4 and chd = 4.

    The dumps come in the order of the derivation: SK_ei and SK_er, later the octets to be authenticated,
    which begin with the header and so with both SPIs; for a child the keys of initiator and responder, then
    the SPIs with their direction. An IKE SA that replaces another authenticates nothing: charon's number for it
    leads from its keys to the SPIs under which it is kept. Whose key protects which
    direction follows from who began the exchange.
    """
    lines = log.splitlines()
    ike: list[IkeKeys] = []
    esp: list[EspKey] = []
    secret: dict[str, bytes] = {}
    successors: dict[str, tuple[bytes, bytes]] = {}
    is_initiator = True
    for number, line in enumerate(lines):
        if found := re.search(r"parsed (?:IKE_AUTH|CREATE_CHILD_SA) (request|response)", line):
            is_initiator = found[1] == "response"
        elif (found := re.search(r"(Sk_ei|Sk_er) secret => ", line)) or (
            found := re.search(r"encryption (initiator|responder) key => ", line)
        ):
            secret[found[1]] = _dump(lines, number)
        elif "octets = message + nonce" in line and {"Sk_ei", "Sk_er"} <= secret.keys():
            header = _dump(lines, number)[:16]
            if any(header[8:]):  # the responder's SPI is zero in the first message
                ike.append(IkeKeys(header[:8], header[8:], secret.pop("Sk_ei"), secret.pop("Sk_er")))
        elif found := re.search(r"IKE_SA \w+\[(\d+)\] state change: CONNECTING => ESTABLISHED", line):
            if {"Sk_ei", "Sk_er"} <= secret.keys():
                successors[found[1]] = (secret.pop("Sk_ei"), secret.pop("Sk_er"))
        elif found := re.search(
            r"checkin IKEv2 SA \w+\[(\d+)\] with SPIs ([0-9a-f]{16})_i ([0-9a-f]{16})_r", line
        ):
            if found[1] in successors:
                spis = (bytes.fromhex(found[2]), bytes.fromhex(found[3]))
                ike.append(IkeKeys(*spis, *successors.pop(found[1])))
        elif (found := re.search(r"adding (inbound|outbound) ESP SA", line)) and {
            "initiator",
            "responder",
        } <= secret.keys():
            sa = re.search(r"SPI 0x([0-9a-f]+), src (\S+) dst (\S+)", lines[number + 1])
            if sa:
                sent_by_initiator = is_initiator == (found[1] == "outbound")
                key = secret["initiator" if sent_by_initiator else "responder"]
                esp.append(EspKey(sa[2], sa[3], int(sa[1], 16), key))
    return KeyTables(tuple(ike), tuple(dict.fromkeys(esp)))


def secrets_from_log(log: str) -> set[bytes]:
    """The keys of IKE and ESP SAs in a charon log written with ike = 4 and chd = 4, of any algorithm."""
    lines = log.splitlines()
    announced = r"(Sk_[ae][ir] secret|(?:encryption|integrity) (?:initiator|responder) key) => "
    return {_dump(lines, number) for number, line in enumerate(lines) if re.search(announced, line)}


def _dump(lines: list[str], number: int) -> bytes:
    """The octets of a hexadecimal dump that is announced in line `number`."""
    announced = re.search(r"=> (\d+) bytes", lines[number])
    size = int(announced[1]) if announced else 0
    octets = bytearray()
    for line in lines[number + 1 :]:
        if len(octets) >= size:
            break
        if found := re.search(r"\]\s+\d+: ((?:[0-9A-F]{2} ?)+)", line):
            octets += bytes.fromhex(found[1])
    return bytes(octets[:size])
