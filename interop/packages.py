"""What the lab needs from Debian: tools on this machine, and root file systems of any Debian suite.

Must not know: what is run from them (containers.py and guests.py do).

A root file system is named by a digest of its recipe and lives in a cache that all checkouts of a machine
share (/var/cache/mplsec-lab, or $MPLSEC_LAB): the first run builds it, later ones find it. It appears there
by rename, so an interrupted build leaves nothing that could be taken for a whole one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .processes import LabError, run

RECIPE = 1
TOOLS = {
    "ip": "iproute2",
    "tcpdump": "tcpdump",
    "tshark": "tshark",
    "debootstrap": "debootstrap",
    "nft": "nftables",
    "chromium": "chromium",
    "setpriv": "util-linux",
    "ping": "iputils-ping",
    "tar": "tar",
}
DOCKER = {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables"}
SOURCES = Path("/etc/apt")
RELEASE = Path("/etc/os-release")


def cache_folder() -> Path:
    """The folder shared by all checkouts, or where there is none yet and you may not make it, one in your home.

    $MPLSEC_LAB overrides.
    """
    folder = Path(os.environ.get("MPLSEC_LAB") or "/var/cache/mplsec-lab")
    if not folder.exists() and not os.access(folder.parent, os.W_OK):
        folder = Path.home() / ".cache/mplsec-lab"
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    return folder.resolve()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; waits for whoever has it, and says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for {path.name}: another run, or the other lane, has it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def missing_tools(tools: Mapping[str, str] = TOOLS) -> dict[str, str]:
    """Tools that this machine lacks, each with the Debian package that brings it."""
    path = ":".join(("/usr/sbin", "/usr/bin", "/sbin", "/bin"))
    return {tool: package for tool, package in tools.items() if shutil.which(tool, path=path) is None}


def install_tools(tools: Mapping[str, str] = TOOLS) -> None:
    """Install what is missing with apt-get; `LabError` names what stays missing."""
    missing = missing_tools(tools)
    if not missing:
        return
    packages = sorted(set(missing.values()))
    print(f"installing {' '.join(packages)}", flush=True)
    options = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    run(["apt-get", "update", *options], timeout_s=300, check=False)
    run(["apt-get", "install", "-y", "--no-install-recommends", *options, *packages], timeout_s=600)
    still = missing_tools(tools)
    if still:
        raise LabError(f"installed {' '.join(packages)}, but not found: {' '.join(sorted(still))}")


def debian_mirror(sources: Path = SOURCES, release: Path = RELEASE) -> str:
    """The Debian mirror that this machine installs from, read from its apt sources."""
    found = re.search(r"^VERSION_CODENAME=(\w+)", release.read_text(), re.MULTILINE)
    codename = found[1] if found else "stable"
    for file in sorted([sources / "sources.list", *(sources / "sources.list.d").glob("*")]):
        if file.is_file():
            for uri, suites in parse_sources(file.read_text(), deb822=file.suffix == ".sources"):
                if codename in suites:
                    return uri
    raise LabError(f"no entry for {codename} in {sources}: where does this machine install Debian from?")


def parse_sources(text: str, *, deb822: bool) -> list[tuple[str, list[str]]]:
    """(URI, suites) of the binary entries of an apt source file, old one-line or deb822 form."""
    text = re.sub(r"^\s*#.*\n?", "", text, flags=re.MULTILINE)
    if not deb822:
        lines = re.findall(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)", text, re.MULTILINE)
        return [(uri, [suite]) for uri, suite in lines]
    entries = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = {
            key.lower(): value.split() for key, value in re.findall(r"^([\w-]+):(.*)$", stanza, re.MULTILINE)
        }
        if "deb" in fields.get("types", []) and fields.get("enabled") != ["no"]:
            entries += [(uri, fields.get("suites", [])) for uri in fields.get("uris", [])]
    return entries


@dataclass(frozen=True)
class Root:
    """A root file system: the minimal system of a Debian suite with some packages."""

    suite: str
    packages: tuple[str, ...]

    @property
    def name(self) -> str:
        """Suite and a digest of the recipe: equal recipes share a folder and an image."""
        recipe = json.dumps([RECIPE, os.uname().machine, self.suite, sorted(self.packages)])
        return f"{self.suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"

    @property
    def path(self) -> Path:
        return cache_folder() / "roots" / self.name

    def ensure(self) -> Path:
        """Build it unless it is there; returns its folder."""
        if self.path.is_dir():  # it appears as a whole; whoever is not root may not even lock
            return self.path
        with locked(cache_folder() / "locks" / self.name):
            if not self.path.is_dir():
                self._build()
        return self.path

    def _build(self) -> None:
        partial = self.path.with_name(f".{self.name}.partial")
        if partial.exists():
            shutil.rmtree(partial)
        partial.parent.mkdir(parents=True, exist_ok=True)
        print(f"building a {self.suite} root file system ({len(self.packages)} packages)", flush=True)
        # A suite that this machine's debootstrap has not heard of is bootstrapped like unstable.
        known = Path("/usr/share/debootstrap/scripts", self.suite).exists()
        script = [] if known else ["/usr/share/debootstrap/scripts/sid"]
        include = f"--include={','.join(self.packages)}"
        run(
            ["debootstrap", "--variant=minbase", include, self.suite, partial, debian_mirror(), *script],
            timeout_s=900,
        )
        for leftover in (
            "var/cache/apt",
            "var/lib/apt/lists",
            "debootstrap",
            "usr/share/doc",
            "usr/share/locale",
        ):
            shutil.rmtree(partial / leftover, ignore_errors=True)
        partial.rename(self.path)


def ensure_roots(roots: Iterable[Root]) -> None:
    """Build several root file systems at the same time."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(Root.ensure, roots))


PEER_PACKAGES = (
    "busybox-static",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libcharon-extra-plugins",
    "libstrongswan-extra-plugins",
    "libstrongswan-standard-plugins",
    "netbase",
    "procps",
    "python3-minimal",
    "strongswan-charon",
    "strongswan-swanctl",
)


KERNEL_SUITE = "bookworm"


def strongswan_root(suite: str) -> Root:
    """A suite's strongSwan with what a peer needs around it; serves as container image and as guest root."""
    return Root(suite, PEER_PACKAGES + (("user-mode-linux",) if suite == KERNEL_SUITE else ()))


def kernel_root() -> Root:
    """The suite that brings the Linux kernel as a process (user-mode-linux), with strongSwan beside it."""
    return strongswan_root(KERNEL_SUITE)


def libreswan_root() -> Root:
    """libreswan, of the first suite whose version keeps to what the lab asks of it."""
    packages = ("bind9-host", "busybox-static", "iproute2", "iputils-ping", "kmod", "libreswan", "netbase")
    return Root("trixie", (*packages, "procps", "python3-minimal"))
