"""The links of labelled attachments by themselves: frames, RFC 4023 packets, and the router's MAC address."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from endpoint.errors import SetupError
from endpoint.frames import FrameLink
from endpoint.inside import TunnelLink
from endpoint.netns import in_namespace
from endpoint.sockets import SocketDrop
from mpls.encapsulation import NO_GRE_OPTIONS, GreOptions
from mpls.ip import internet_checksum
from mpls.labels import LabelStack
from tests.endpoint.namespaces import Namespaces, ip
from tests.endpoint.running import Router, mac_of

pytestmark = pytest.mark.root

STACK = LabelStack.push(1000)
BODY = b"what is labelled"
OCTETS = STACK.encode() + BODY


@pytest.fixture
def spaces() -> Iterator[Namespaces]:
    spaces = Namespaces()
    try:
        spaces.add("gw")
        spaces.add("router")
        spaces.join("gw", "172.16.0.1/24", "router", "172.16.0.2/24")
        ip("-n", spaces.real("router"), "address", "add", "172.16.0.3/24", "dev", "wire")
        yield spaces
    finally:
        spaces.remove()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)


async def test_only_frames_for_this_host_are_taken(spaces: Namespaces) -> None:
    taken: list[bytes] = []
    router = Router(spaces.real("router"))
    link = FrameLink.open("wire", "02:00:00:00:00:09", on_frames=taken.extend, netns=spaces.real("gw"))
    try:
        for number, to in enumerate((b"\xff" * 6, bytes.fromhex("02000000aaaa"), b"\x01\0\x5e\0\0\x01")):
            router.send(to, LabelStack.push(2000 + number), BODY)
        router.send(mac_of(spaces.real("gw")), STACK, BODY)
        await until(lambda: bool(taken))
        assert taken == [OCTETS]
    finally:
        link.close()
        router.close()


async def test_router_is_found_by_its_address(spaces: Namespaces) -> None:
    router = Router(spaces.real("router"))
    link = FrameLink.open("wire", "172.16.0.2", on_frames=lambda frames: None, netns=spaces.real("gw"))
    try:
        link.send(OCTETS)
        assert link.drops == Counter({SocketDrop.UNREACHABLE: 1}), "nobody has answered yet"
        await until(lambda: link.router is not None)
        assert link.router == mac_of(spaces.real("router"))
        link.send(OCTETS)
        await until(lambda: [(stack.labels, body) for stack, body in router.received()] == [((1000,), BODY)])
        link.send(bytes(2000))
        assert link.drops[SocketDrop.TOO_BIG] == 1
    finally:
        link.close()
        router.close()


async def test_what_cannot_be_is_refused_with_a_remedy(spaces: Namespaces) -> None:
    netns = spaces.real("gw")
    for device, next_hop, message in (
        ("absent", "172.16.0.2", f"see `ip -n {netns} link`"),
        ("lo", "172.16.0.2", "no Ethernet interface"),
    ):
        with pytest.raises(SetupError, match=message):
            FrameLink.open(device, next_hop, on_frames=lambda frames: None, netns=netns)
    with pytest.raises(SetupError, match="the address is not there"):
        tunnel(spaces, 137, local="172.16.9.9")


def tunnel(
    spaces: Namespaces,
    protocol: int,
    *,
    local: str = "172.16.0.1",
    gre: GreOptions = NO_GRE_OPTIONS,
    taken: list[bytes] | None = None,
    refused: Counter[str] | None = None,
) -> TunnelLink:
    return TunnelLink.open(
        protocol,
        local,
        "172.16.0.2",
        on_packets=(taken if taken is not None else []).extend,
        refused=refused if refused is not None else Counter(),
        gre=gre,
        netns=spaces.real("gw"),
        device="wire",
    )


def send(spaces: Namespaces, protocol: int, payload: bytes, source: str = "172.16.0.2") -> None:
    opened = in_namespace(
        spaces.real("router"), lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    )
    with opened:
        opened.bind((source, 0))
        opened.sendto(payload, ("172.16.0.1", 0))


@pytest.mark.parametrize(("protocol", "shim"), [(137, b""), (47, b"\0\0\x88\x47")])
async def test_only_the_configured_router_is_heard(spaces: Namespaces, protocol: int, shim: bytes) -> None:
    """Of another source it is MPLS in clear (RFC 4023 8.1), whatever its label."""
    taken: list[bytes] = []
    refused: Counter[str] = Counter()
    link = tunnel(spaces, protocol, taken=taken, refused=refused)
    try:
        send(spaces, protocol, shim + OCTETS, "172.16.0.3")
        send(spaces, protocol, shim + OCTETS)
        await until(lambda: bool(taken))
        assert (taken, refused) == ([OCTETS], Counter({"cleartext_mpls": 1}))
    finally:
        link.close()


async def test_gre_options_are_taken_as_configured(spaces: Namespaces) -> None:
    taken: list[bytes] = []
    refused: Counter[str] = Counter()
    link = tunnel(
        spaces, 47, gre=GreOptions(checksum=True, key=7, sequence=True), taken=taken, refused=refused
    )
    try:
        options = b"\0\0\0\7" + b"\0\0\0\1"
        head = b"\xb0\0\x88\x47"
        checksum = internet_checksum(head + bytes(4) + options + OCTETS).to_bytes(2, "big")
        send(spaces, 47, head + checksum + bytes(2) + options + OCTETS)
        send(spaces, 47, head + b"\0\1" + bytes(2) + options + OCTETS)
        send(spaces, 47, b"\x20\0\x88\x47" + b"\0\0\0\x08" + OCTETS)
        send(spaces, 47, b"\0\0\x08\0" + OCTETS)
        await until(lambda: bool(taken) and sum(refused.values()) == 3)
        assert (taken, refused) == ([OCTETS], Counter({"gre_header": 2, "not_mpls": 1}))
    finally:
        link.close()


async def test_inner_router_over_ipv6(spaces: Namespaces) -> None:
    for name, address in (
        ("gw", "2001:db8::1/64"),
        ("router", "2001:db8::2/64"),
        ("router", "2001:db8::3/64"),
    ):
        ip("-n", spaces.real(name), "address", "add", address, "dev", "wire", "nodad")
    taken: list[bytes] = []
    refused: Counter[str] = Counter()
    link = TunnelLink.open(
        137,
        "2001:db8::1",
        "2001:db8::2",
        on_packets=taken.extend,
        refused=refused,
        gre=NO_GRE_OPTIONS,
        netns=spaces.real("gw"),
    )
    inner = in_namespace(spaces.real("router"), lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 137))
    try:
        inner.setblocking(False)
        for source in ("2001:db8::3", "2001:db8::2"):
            sender = in_namespace(
                spaces.real("router"), lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 137)
            )
            with sender:
                sender.bind((source, 0))
                sender.sendto(OCTETS, ("2001:db8::1", 0))
        await until(lambda: bool(taken))
        assert (taken, refused) == ([OCTETS], Counter({"cleartext_mpls": 1}))
        link.send(OCTETS)
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(inner, 2000), 5) == OCTETS
    finally:
        link.close()
        inner.close()
