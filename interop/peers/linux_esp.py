"""A Linux kernel as a guest whose ESP is set up by hand (`ip xfrm`), and which answers pings: nothing else.

Must not know: IKE, or what is at the other end.
"""

from __future__ import annotations

from pathlib import Path

from ..esp_end import NAT_PORT, ManualSas
from ..guests import Guest
from ..networks import Network
from ..packages import kernel_root

MODULES = (
    *("xfrm_user", "esp4", "esp6", "xfrm4_tunnel", "xfrm6_tunnel"),
    *("gcm", "ctr", "ghash-generic", "seqiv", "drbg", "jitterentropy_rng", "sha512_generic", "hmac"),
    *("authenc", "authencesn", "cbc", "echainiv", "chacha20poly1305", "chacha_generic", "poly1305_generic"),
)
WINDOW_PACKETS = 1024
ALGORITHMS = {
    20: "aead 'rfc4106(gcm(aes))' 0x{key} 128",
    28: "aead 'rfc7539esp(chacha20,poly1305)' 0x{key} 128",
    12: "enc 'cbc(aes)' 0x{key} auth-trunc 'hmac(sha256)' 0x{integ_key} 128",
}
"""Of ip xfrm, by IANA's numbers of the encryption; with AES-CBC goes HMAC-SHA-256-128."""
OPEN_NAT_PORT = f"""import socket, time
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    one = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    one.setsockopt(socket.IPPROTO_UDP, 100, 2)  # UDP_ENCAP, UDP_ENCAP_ESPINUDP
    one.bind((address, {NAT_PORT}))
    globals()[address] = one
print("open", flush=True)
time.sleep(1000)
"""


class LinuxEsp(Guest):
    """The host at the peer's addresses. Addresses inside of tunnels are on its loopback."""

    def __init__(
        self,
        network: Network,
        *,
        folder: Path,
        state: Path,
        addresses: tuple[str, ...],
        inside: tuple[str, ...],
    ) -> None:
        """`addresses` with their lengths; `inside`: those that tunnels end at, ours first, then its own."""
        kernel = kernel_root()
        super().__init__(
            "pe2",
            root=kernel.ensure(),
            kernel=kernel.ensure(),
            netns=network.wire,
            taps=[network.tap("pe2")],
            share=folder,
            state=state,
            modules=MODULES,
        )
        (folder / "open_nat_port.py").write_text(OPEN_NAT_PORT)
        lines = [f"ip addr add {one} dev vec0 {'nodad' if ':' in one else ''}" for one in addresses]
        for ours, own in zip(inside[::2], inside[1::2], strict=True):
            lines += [f"ip addr add {own} dev lo", f"ip route add {ours} dev vec0"]
        setup = "\n".join(lines)
        try:
            self.setup(f"""sysctl -qw net.ipv4.conf.all.rp_filter=0
sysctl -qw net.ipv6.conf.default.autoconf=0 net.ipv6.conf.default.accept_ra=0
ip link set lo up
ip link set vec0 addrgenmode none
ip link set vec0 up
{setup}
setsid python3 /share/open_nat_port.py >/share/open_nat_port.log 2>&1 &
while ! grep -q open /share/open_nat_port.log; do sleep 0.05; done
""")
        except BaseException:
            self.stop()
            raise

    def install(self, sas: ManualSas) -> None:
        """Both SAs and the policies for pings from us and their answers, in place of what there was."""
        there, here = sas.local, sas.peer
        mode = "tunnel" if sas.inside else "transport"
        zero = "::" if sas.version == 6 else "0.0.0.0"  # noqa: S104 - no address, in ip's words
        encap = f"encap espinudp {NAT_PORT} {NAT_PORT} {zero}" if sas.is_udp else ""
        esn = "flag esn" if sas.esn else ""
        high, low = divmod(sas.sequence, 1 << 32)
        lines = ["ip xfrm state flush", "ip xfrm policy flush"]
        for one, way, ends in (
            (sas.outbound, "seq", f"src {there} dst {here}"),
            (sas.inbound, "oseq", f"src {here} dst {there}"),
        ):
            algorithm = ALGORITHMS[sas.encr].format(key=one.key, integ_key=one.integ_key)
            begin = f"replay-{way} {low:#x}" + (f" replay-{way}-hi {high:#x}" if high else "")
            lines.append(
                f"ip xfrm state add {ends} proto esp spi {one.spi:#x} reqid 1 mode {mode}"
                f" replay-window {WINDOW_PACKETS} {begin} {esn} {algorithm} {encap}"
            )
        asker, answerer = sas.inside or (there, here)
        protocol = "proto 1" if sas.version == 4 else "proto 58 type {}"
        for way, ends, outer, kind in (
            ("in", f"src {asker} dst {answerer}", f"src {there} dst {here}", 128),
            ("out", f"src {answerer} dst {asker}", f"src {here} dst {there}", 129),
        ):
            template = f"tmpl {outer} proto esp reqid 1 mode {mode}"
            lines.append(f"ip xfrm policy add {ends} {protocol.format(kind)} dir {way} {template}")
        self.setup("\n".join(lines))

    def count(self) -> tuple[str, dict[str, int]]:
        """`ip -s xfrm state`, and the error counters since the start that are not zero."""
        text, _, errors = self.sh("ip -s xfrm state; echo ERRORS; cat /proc/net/xfrm_stat").partition(
            "ERRORS\n"
        )
        lines = [line.split() for line in errors.splitlines()]
        return text, {name: int(value) for name, value in lines if int(value)}
