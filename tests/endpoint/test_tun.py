"""endpoint/tun.py and endpoint/netlink.py: a TUN in a namespace, its routes, and nothing left of them."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_interface, ip_network

import pytest
from scapy.layers.inet import IP, UDP

from endpoint import tun as tun_module
from endpoint.errors import SetupError
from endpoint.netns import in_namespace
from endpoint.tun import Tun, TunDrop

Ip = Callable[..., str]

pytestmark = pytest.mark.root


@pytest.fixture
async def tun(namespace: str) -> AsyncIterator[Tun]:
    device = Tun.create("red0", netns=namespace, addresses=["10.1.0.1/24", "2001:db8:1::1/64"], mtu=1400)
    yield device
    device.close()


def customer_socket(namespace: str, address: str = "10.1.0.1") -> socket.socket:
    """A UDP socket of a customer's host behind the device."""
    sock = in_namespace(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind((address, 0))
    sock.setblocking(False)
    return sock


async def packets_from(tun: Tun, number: int, send: Callable[[], object]) -> list[bytes]:
    """The UDP packets that come out of the device after `send()`."""
    packets: list[bytes] = []
    arrived = asyncio.Event()

    def on_packets(batch: list[bytes]) -> None:
        packets.extend(packet for packet in batch if packet[0] >> 4 == 4)
        arrived.set()

    tun.start(on_packets)
    send()
    async with asyncio.timeout(5):
        while len(packets) < number:
            arrived.clear()
            await arrived.wait()
    return packets


async def test_device_has_addresses_mtu_and_nothing_else(tun: Tun, namespace: str, ip: Ip) -> None:
    shown = ip("address", "show", "dev", "red0", netns=namespace)
    assert "inet 10.1.0.1/24" in shown
    assert "inet6 2001:db8:1::1/64" in shown
    assert "fe80" not in shown
    assert "mtu 1400" in shown
    assert "UP" in shown
    assert "red0" not in ip("link")


async def test_packets_come_out_in_order(tun: Tun, namespace: str) -> None:
    customer = customer_socket(namespace)
    contents = [b"packet %d" % number for number in range(200)]
    packets = await packets_from(
        tun, 200, lambda: [customer.sendto(content, ("10.1.0.9", 9)) for content in contents]
    )
    assert [bytes(IP(packet)[UDP].payload) for packet in packets] == contents
    assert IP(packets[0]).src == "10.1.0.1"
    customer.close()


async def test_packets_that_the_queue_has_no_room_for_are_counted(tun: Tun, namespace: str) -> None:
    customer = customer_socket(namespace)
    for _ in range(600):  # nobody reads meanwhile; the queue has 500
        customer.sendto(b"a packet", ("10.1.0.9", 9))
    assert 90 <= (await tun.all_drops())["tun_queue"] <= 100
    customer.close()


async def test_packet_written_reaches_the_customer(tun: Tun, namespace: str) -> None:
    customer = customer_socket(namespace)
    port = customer.getsockname()[1]
    tun.write_batch([bytes(IP(src="10.1.0.9", dst="10.1.0.1") / UDP(sport=9, dport=port) / b"hello")])
    async with asyncio.timeout(5):
        assert await asyncio.get_running_loop().sock_recv(customer, 100) == b"hello"
    customer.close()


async def test_what_is_no_ip_packet_is_counted(tun: Tun, namespace: str, ip: Ip) -> None:
    for junk in (b"", b"\0", bytes(100), b"\xff" * 70000):
        tun.write_batch([junk])
    assert sum(tun.drops.values()) == 4
    ip("link", "set", "red0", "down", netns=namespace)
    tun.write_batch([bytes(IP(src="10.1.0.9", dst="10.1.0.1"))])
    assert tun.drops[TunDrop.DOWN] == 1


async def test_a_kernel_that_refuses_super_packets_gets_packets(
    tun: Tun, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = customer_socket(namespace)
    port = customer.getsockname()[1]
    packets = [
        bytes(IP(src="10.1.0.9", dst="10.1.0.1") / UDP(sport=9, dport=port) / (b"%d" % n)) for n in range(5)
    ]

    def unknown(packets: list[bytes], own: object) -> list[tuple[list[bytes], int]]:
        kind_of_nothing = b"\0\x63" + bytes(8)
        return [
            ([bytes(10), packets[0]], 1),
            ([kind_of_nothing, *packets[1:4]], 3),
            ([bytes(10), packets[4]], 1),
        ]

    monkeypatch.setattr(tun_module, "coalesce", unknown)
    tun.write_batch(packets)
    assert not tun.has_offload
    tun.write_batch(packets[:2])
    async with asyncio.timeout(5):
        came = [await asyncio.get_running_loop().sock_recv(customer, 100) for _ in range(7)]
    assert came == [b"0", b"1", b"2", b"3", b"4", b"0", b"1"]
    assert not tun.drops
    customer.close()


async def test_mtu_can_be_changed(tun: Tun, namespace: str, ip: Ip) -> None:
    tun.set_mtu(1300)
    assert "mtu 1300" in ip("link", "show", "red0", netns=namespace)


async def test_learned_routes_carry_our_protocol_and_go_when_nobody_needs_them(
    tun: Tun, namespace: str, ip: Ip
) -> None:
    four, six = ip_network("10.2.0.0/24"), ip_network("2001:db8:2::/48")
    for prefix in (four, four, six):
        tun.routes.add(prefix)
    await tun.routes.settle()
    assert ip("route", "show", "proto", "137", netns=namespace).split()[:3] == ["10.2.0.0/24", "dev", "red0"]
    assert ip("-6", "route", "show", "proto", "137", netns=namespace).startswith("2001:db8:2::/48 dev red0")
    tun.routes.remove(four)
    tun.routes.remove(six)
    tun.routes.remove(ip_network("10.99.0.0/24"))
    await tun.routes.settle()
    assert ip("route", "show", "proto", "137", netns=namespace).startswith("10.2.0.0/24")
    assert ip("-6", "route", "show", "proto", "137", netns=namespace) == ""
    tun.routes.remove(four)
    await tun.routes.settle()
    assert ip("route", "show", "proto", "137", netns=namespace) == ""
    assert not tun.routes.refused


async def test_an_address_comes_and_goes(
    tun: Tun, namespace: str, ip: Ip, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("10.9.0.7/32", "2001:db8:9::7/128"):
        tun.change_address("add", ip_interface(text))
    await tun.routes.settle()
    shown = ip("address", "show", "red0", netns=namespace)
    assert "inet 10.9.0.7/32" in shown and "inet6 2001:db8:9::7/128" in shown
    tun.change_address("del", ip_interface("10.9.0.7/32"))
    with caplog.at_level(logging.WARNING):
        tun.change_address("del", ip_interface("10.9.0.7/32"))
        await tun.routes.settle()
    assert "10.9.0.7" not in ip("address", "show", "red0", netns=namespace)
    assert "del address 10.9.0.7/32 refused" in caplog.text


async def test_customer_uses_a_learned_route_with_our_address(tun: Tun, namespace: str) -> None:
    tun.routes.add(ip_network("10.2.0.0/24"))
    await tun.routes.settle()
    customer = customer_socket(namespace, "0.0.0.0")  # noqa: S104
    (packet,) = await packets_from(tun, 1, lambda: customer.sendto(b"x", ("10.2.0.1", 9)))
    assert IP(packet).src == "10.1.0.1"
    customer.close()


async def test_route_of_somebody_else_stays_theirs(
    tun: Tun, namespace: str, ip: Ip, caplog: pytest.LogCaptureFixture
) -> None:
    ip("route", "add", "10.2.0.0/24", "dev", "lo", netns=namespace)
    with caplog.at_level(logging.WARNING):
        tun.routes.add(ip_network("10.2.0.0/24"))
        await tun.routes.settle()
        tun.routes.remove(ip_network("10.2.0.0/24"))
        await tun.routes.settle()
    assert tun.routes.refused == {"File exists": 1}
    assert "route 10.2.0.0/24 dev red0: add refused: File exists" in caplog.text
    assert "dev lo" in ip("route", "show", "10.2.0.0/24", netns=namespace)


async def test_nothing_is_left_after_close(namespace: str, ip: Ip) -> None:
    before = ip("route", netns=namespace), ip("-6", "route", netns=namespace), ip("link", netns=namespace)
    descriptors = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    tun = Tun.create("red0", netns=namespace, addresses=["10.1.0.1/24"])
    tun.start(lambda batch: None)
    tun.routes.add(ip_network("10.2.0.0/24"))
    tun.close()
    tun.close()
    tun.write_batch([bytes(20)])
    assert tun.drops == {TunDrop.REFUSED: 1}
    after = ip("route", netns=namespace), ip("-6", "route", netns=namespace), ip("link", netns=namespace)
    assert after == before
    assert set(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208


CHILD = """
import asyncio, sys
from ipaddress import ip_interface, ip_network
from endpoint.tun import Tun
async def main():
    tun = Tun.create("red0", netns=sys.argv[1], addresses=["10.1.0.1/24"])
    tun.routes.add(ip_network("10.2.0.0/24"))
    await tun.routes.settle()
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def test_nothing_is_left_after_sigkill_and_the_name_is_free_at_once(namespace: str, ip: Ip) -> None:
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", CHILD, namespace], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            assert "10.2.0.0/24" in ip("route", netns=namespace)
            child.send_signal(signal.SIGKILL)
        assert ip("route", netns=namespace) == ""
        assert "red0" not in ip("link", netns=namespace)


async def test_same_name_and_addresses_work_in_two_namespaces(
    new_namespace: Callable[[], str], ip: Ip
) -> None:
    names = [new_namespace(), new_namespace()]
    tuns = [Tun.create("red0", netns=name, addresses=["10.1.0.1/24"]) for name in names]
    for name in names:
        assert "10.1.0.1/24" in ip("address", "show", "red0", netns=name)
    for tun in tuns:
        tun.close()


async def test_device_of_somebody_else_is_refused(namespace: str, ip: Ip) -> None:
    ip("tuntap", "add", "red0", "mode", "tun", netns=namespace)
    with pytest.raises(SetupError, match="there already; ip link delete red0"):
        Tun.create("red0", netns=namespace)


@pytest.mark.parametrize(
    ("name", "addresses", "mtu", "said"),
    [
        ("a-name-too-long-for-a-device", [], 1400, "1 to 15 octets"),
        ("", [], 1400, "1 to 15 octets"),
        ("red0", ["10.1.0.1/24", "10.1.0.1/24"], 1400, "address 10.1.0.1/24: .*(assigned|exists)"),
        ("red0", [], 10, "Invalid argument|mtu less than"),
    ],
)
async def test_refusal_is_said_and_leaves_nothing(
    namespace: str, ip: Ip, name: str, addresses: list[str], mtu: int, said: str
) -> None:
    descriptors = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(SetupError, match=said):
        Tun.create(name, netns=namespace, addresses=addresses, mtu=mtu)
    assert "red0" not in ip("link", netns=namespace)
    assert set(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208


async def test_device_deleted_by_somebody_else_is_reported_once(tun: Tun, namespace: str, ip: Ip) -> None:
    reported = asyncio.Event()
    contexts = []

    def on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        contexts.append(context["message"])
        reported.set()

    asyncio.get_running_loop().set_exception_handler(on_exception)
    tun.start(lambda batch: None)
    ip("link", "delete", "red0", netns=namespace)
    async with asyncio.timeout(5):
        await reported.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert contexts == ["TUN red0 is gone"]
    assert not asyncio.get_running_loop().remove_reader(tun._descriptor)
    tun.write_batch([bytes(IP(src="10.1.0.9", dst="10.1.0.1"))])
    assert sum(tun.drops.values()) == 1
