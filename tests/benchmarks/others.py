"""wireguard-go and OpenVPN without kernel offload, twice each: peers of the comparison.

Must not know: what is measured. Both run from root file systems made of Debian's packages: nothing is installed.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID

from interop.packages import Root
from tests.benchmarks.tunnels import LARGEST_MTU, Ends, NotHere, package_version

__all__ = ["OpenVpn", "WireguardGo"]

NEWEST = Root("sid", ("wireguard-go",))
STABLE = Root("bookworm", ("openvpn", "wireguard-go"))


class WireguardGo(Ends):
    """ChaCha20-Poly1305, its only cipher; configured over its own socket (the cross-platform interface)."""

    device = "wg0"

    def __init__(self, folder: Path, *, newest: bool) -> None:
        super().__init__(folder, NEWEST if newest else STABLE)

    def _start(self, root: Path) -> None:
        self.version = package_version(root, "wireguard-go")
        for netns in self.namespaces:
            self._run(netns, root, ["wireguard-go", "-f", self.device])
        self._wait_for_devices()
        keys = [X25519PrivateKey.generate() for _ in self.namespaces]
        for number, process in enumerate(self._running):
            peer = keys[1 - number].public_key().public_bytes_raw().hex()
            settings = {
                "private_key": keys[number].private_bytes_raw().hex(),
                "listen_port": "51820",
                "public_key": peer,
                "endpoint": f"192.0.2.{2 - number}:51820",
                "allowed_ip": f"10.{2 - number}.0.0/24",
            }
            self._set(process.pid, settings)

    def _set(self, process: int, settings: dict[str, str]) -> None:
        lines = "".join(f"{key}={value}\n" for key, value in settings.items())
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5)
            control.connect(f"/proc/{process}/root/run/wireguard/{self.device}.sock")
            control.sendall(f"set=1\n{lines}\n".encode())
            answer = control.recv(1000).decode()
        if "errno=0" not in answer:
            raise NotHere(f"it refuses its configuration: {answer.strip()}")


class OpenVpn(Ends):
    """AES-256-GCM over UDP between two ends, without data channel offload."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, STABLE)

    def _start(self, root: Path) -> None:
        self.version = package_version(root, "openvpn")
        prints = [self._certificate(number) for number in (1, 2)]
        for number, netns in enumerate(self.namespaces, 1):
            role = ["--tls-server", "--dh", "none"] if number == 1 else ["--tls-client"]
            command = [
                "openvpn",
                *role,
                *("--dev", self.device, "--dev-type", "tun", "--disable-dco", "--proto", "udp"),
                *("--local", f"192.0.2.{number}", "--remote", f"192.0.2.{3 - number}"),
                *("--cert", f"/mnt/{number}.pem", "--key", f"/mnt/{number}.key"),
                *("--peer-fingerprint", prints[2 - number]),
                *("--data-ciphers", "AES-256-GCM", "--cipher", "AES-256-GCM"),
                *("--ifconfig", f"10.9.0.{number}", f"10.9.0.{3 - number}"),
                *("--tun-mtu", str(LARGEST_MTU), "--mssfix", "0"),
            ]
            self._run(netns, root, command)
        self._wait_for_devices()

    def _certificate(self, number: int) -> str:
        """Make a key and a certificate for one end; returns its fingerprint."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"end{number}")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(number)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (self.folder / f"{number}.pem").write_bytes(certificate.public_bytes(pem))
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / f"{number}.key").write_bytes(secret)
        return certificate.fingerprint(hashes.SHA256()).hex(":")
