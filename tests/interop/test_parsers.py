"""What the lab reads: apt sources, key tables, charon's log and control protocol, the kernel's SAs, ping."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from interop.cases import classes, libreswan, life, linux_pe, native, paths, strongswan
from interop.golden import slim
from interop.keys import EspKey, IkeKeys, KeyTables
from interop.packages import Root, debian_mirror, parse_sources
from interop.peers.libreswan import esp_keys_of
from interop.peers.linux_pe import XfrmState, parse_xfrm_states, received, transmitted
from interop.peers.strongswan import Child, Connection, keys_from_log, parse_sas
from interop.processes import CommandError, LabError, run, wait_until

IKE = IkeKeys(bytes(range(8)), bytes(range(8, 16)), b"\x11" * 36, b"\x22" * 36)
ESP_OUT = EspKey("192.0.2.1", "192.0.2.2", 0xCF126616, b"\x33" * 36)
ESP_IN = EspKey("192.0.2.2", "192.0.2.1", 0xC34D8BE9, b"\x44" * 36)


def test_key_tables_survive_writing_and_reading(tmp_path: Path) -> None:
    tables = KeyTables((IKE,), (ESP_OUT, ESP_IN))
    assert KeyTables.read(tables.write(tmp_path)) == tables


def test_key_rows_are_in_wiresharks_format() -> None:
    assert IKE.row() == (
        f"0001020304050607,08090a0b0c0d0e0f,{'11' * 36},{'22' * 36},"
        '"AES-GCM-256 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"'
    )
    assert ESP_OUT.row() == (
        '"IPv4","192.0.2.1","192.0.2.2","0xcf126616","AES-GCM with 16 octet ICV [RFC4106]",'
        f'"0x{"33" * 36}","NULL",""'
    )


def test_key_tables_agree_whatever_their_order_but_never_when_empty() -> None:
    tables = KeyTables((IKE,), (ESP_OUT, ESP_IN))
    assert tables.agrees_with(KeyTables((IKE,), (ESP_IN, ESP_OUT)))
    assert not tables.agrees_with(KeyTables((IKE,), (ESP_IN,)))
    assert not KeyTables((), ()).agrees_with(KeyTables((), ()))


def test_missing_key_tables_are_empty(tmp_path: Path) -> None:
    assert KeyTables.read(tmp_path) == KeyTables((), ())


def dump(thread: str, title: str, octets: bytes) -> str:
    """A hexadecimal dump as charon writes it."""
    rows = [f"{thread} {title} => {len(octets)} bytes @ 0x64009320"]
    for at in range(0, len(octets), 16):
        row = octets[at : at + 16]
        rows.append(f"{thread} {at:4}: {row.hex(' ').upper():47}  {'.' * len(row)}")
    return "\n".join(rows) + "\n"


def charon_log(direction: str, intermediate: str = "") -> str:
    """What charon logs about one IKE SA with one child; `direction`: of the IKE_AUTH message that it parsed."""
    request = IKE.spi_i + bytes(8) + bytes(40)
    response = IKE.spi_i + IKE.spi_r + bytes(40)
    octets = f"octets = message + nonce + prf(Sk_px, IDx'){intermediate}"
    return (
        dump("14[IKE]", "Sk_ei secret", IKE.sk_ei)
        + dump("14[IKE]", "Sk_er secret", IKE.sk_er)
        + dump("14[IKE]", octets, request)
        + f"14[ENC] parsed IKE_AUTH {direction} 1 [ IDi AUTH SA TSi TSr ]\n"
        + dump("14[IKE]", octets, response)
        + dump("07[CHD]", "encryption initiator key", ESP_OUT.key)
        + dump("07[CHD]", "encryption responder key", ESP_IN.key)
    )


@pytest.mark.parametrize("intermediate", ["", " + IntAuth"])
def test_keys_from_the_log_of_a_responder(intermediate: str) -> None:
    log = charon_log("request", intermediate) + (
        "07[CHD] adding inbound ESP SA\n"
        "07[CHD]   SPI 0xcf126616, src 192.0.2.1 dst 192.0.2.2\n"
        "07[CHD] adding outbound ESP SA\n"
        "07[CHD]   SPI 0xc34d8be9, src 192.0.2.2 dst 192.0.2.1\n"
    )
    assert keys_from_log(log).agrees_with(KeyTables((IKE,), (ESP_OUT, ESP_IN)))


def test_keys_from_the_log_of_an_initiator() -> None:
    log = charon_log("response") + (
        "07[CHD] adding inbound ESP SA\n"
        "07[CHD]   SPI 0xc34d8be9, src 192.0.2.2 dst 192.0.2.1\n"
        "07[CHD] adding outbound ESP SA\n"
        "07[CHD]   SPI 0xcf126616, src 192.0.2.1 dst 192.0.2.2\n"
    )
    assert keys_from_log(log).agrees_with(KeyTables((IKE,), (ESP_OUT, ESP_IN)))


def test_keys_of_an_ike_sa_that_replaces_another_get_their_spis_when_it_is_kept() -> None:
    other = IkeKeys(b"\x01" * 8, b"\x02" * 8, b"\x55" * 36, b"\x66" * 36)
    log = (
        charon_log("request")
        + "12[IKE] IKE_SA peer[1] state change: CONNECTING => ESTABLISHED\n"
        + dump("08[IKE]", "Sk_ei secret", other.sk_ei)
        + dump("08[IKE]", "Sk_er secret", other.sk_er)
        + "08[IKE] IKE_SA peer[2] state change: CONNECTING => ESTABLISHED\n"
        + "08[MGR] checkin IKEv2 SA peer[1] with SPIs 0001020304050607_i 08090a0b0c0d0e0f_r\n"
        + f"08[MGR] checkin IKEv2 SA peer[2] with SPIs {other.spi_i.hex()}_i {other.spi_r.hex()}_r\n"
    )
    assert keys_from_log(log).ike == (IKE, other)


def test_log_without_keys_gives_none() -> None:
    assert keys_from_log("00[DMN] Starting IKE charon daemon\n") == KeyTables((), ())


def test_raw_list_of_sas() -> None:
    raw = (
        "list-sa event {peer {uniqueid=1 state=ESTABLISHED remote-id=pe1.example tasks-passive=[A B] "
        "child-sas {gold-1 {name=gold state=INSTALLED encap=yes packets-in=3 "
        "local-ts=[10.255.0.2/32[mpls-in-ip]] remote-ts=[10.255.0.1/32[mpls-in-ip]]} "
        "standard-2 {name=standard state=REKEYED}}}}\n"
        "list-sas reply {}\n"
    )
    (sa,) = parse_sas(raw)
    assert sa["remote-id"] == "pe1.example"
    assert sa["tasks-passive"] == ["A", "B"]
    children = sa["child-sas"]
    assert isinstance(children, dict)
    assert children["gold-1"]["local-ts"] == ["10.255.0.2/32[mpls-in-ip]"]
    assert children["standard-2"] == {"name": "standard", "state": "REKEYED"}


def test_raw_list_without_sas() -> None:
    assert parse_sas("list-sas reply {}\n") == []


def test_kernel_sas_with_counters() -> None:
    text = textwrap.dedent("""\
        src 192.0.2.2 dst 192.0.2.1
        \tproto esp spi 0xc34d8be9(3276639209) reqid 1(0x00000001) mode transport
        \treplay-window 0 seq 0x00000000 flag  (0x00000000)
        \taead rfc4106(gcm(aes)) 0x00 (288 bits) 128
        \tencap type espinudp sport 4500 dport 4500 addr 0.0.0.0
        \tlifetime current:
        \t  648(bytes), 6(packets)
        \t  add 2026-01-01 00:00:00 use 2026-01-01 00:00:01
        src 192.0.2.1 dst 192.0.2.2
        \tproto esp spi 0xcf126616(3474089494) reqid 1(0x00000001) mode transport
        \tlifetime current:
        \t  0(bytes), 0(packets)
        """)
    assert parse_xfrm_states(text) == [
        XfrmState("192.0.2.2", "192.0.2.1", 0xC34D8BE9, "transport", True, 6),
        XfrmState("192.0.2.1", "192.0.2.2", 0xCF126616, "transport", False, 0),
    ]


def test_keys_of_the_kernels_sas() -> None:
    text = textwrap.dedent(f"""\
        src 192.0.2.1 dst 192.0.2.2
        \tproto esp spi 0xcf126616 reqid 16389 mode transport
        \treplay-window 0 flag esn
        \taead rfc4106(gcm(aes)) 0x{ESP_OUT.key.hex()} 128
        src 192.0.2.2 dst 192.0.2.1
        \tproto esp spi 0x00000001 reqid 16389 mode transport
        \tauth-trunc hmac(sha256) 0x00 128
        """)
    assert esp_keys_of(text) == (ESP_OUT,)


def test_answers_of_ping() -> None:
    assert transmitted("35 packets transmitted, 34 received, 3% packet loss") == 35
    assert received("3 packets transmitted, 2 received, 33% packet loss, time 407ms") == 2
    assert received("ping: connect: Network is unreachable") == 0


def test_apt_sources_in_both_forms() -> None:
    old = "# deb http://old.example/debian bookworm main\ndeb [signed-by=/k] http://a.example/debian bookworm main\n"
    assert parse_sources(old, deb822=False) == [("http://a.example/debian", ["bookworm"])]
    new = textwrap.dedent("""\
        Types: deb deb-src
        # a comment
        URIs: http://b.example/debian
        Suites: bookworm bookworm-updates

        Types: deb
        URIs: http://off.example/debian
        Suites: bookworm
        Enabled: no
        """)
    assert parse_sources(new, deb822=True) == [("http://b.example/debian", ["bookworm", "bookworm-updates"])]


def test_mirror_is_the_one_that_has_this_machines_suite(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "Types: deb\nURIs: http://security.example/debian-security\nSuites: trixie-security\n\n"
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie trixie-updates\n"
    )
    release = tmp_path / "os-release"
    release.write_text('ID=debian\nVERSION_CODENAME=trixie\nNAME="Debian"\n')
    assert debian_mirror(tmp_path, release) == "http://mirror.example/debian"
    release.write_text("VERSION_CODENAME=bookworm\n")
    with pytest.raises(LabError, match="bookworm"):
        debian_mirror(tmp_path, release)


def test_root_is_named_by_its_recipe() -> None:
    assert Root("trixie", ("a", "b")).name == Root("trixie", ("b", "a")).name
    assert Root("trixie", ("a", "b")).name != Root("trixie", ("a", "b", "c")).name
    assert Root("trixie", ("a",)).name != Root("forky", ("a",)).name


def test_swanctl_configuration_has_one_setting_a_line() -> None:
    child = Child("gold", "dynamic[137]", "dynamic[137]", label="mpls:vrf=red;class=gold")
    text = Connection("192.0.2.2", "192.0.2.1", "b", "a", "secret", (child,), encap=True).text()
    assert "label = mpls:vrf=red;class=gold\n      label_mode = simple\n" in text
    assert "encap = yes\n" in text
    assert all(line.count(" = ") <= 1 for line in text.splitlines())
    assert text.count("{") == text.count("}")


def test_slimming_keeps_what_is_shown() -> None:
    pdml = (
        '<pdml><packet><proto name="geninfo"/><proto name="frame"><field name="frame.number" show="1" pos="0"/></proto>'
        '<proto name="ip"><field name="ip.src" show="192.0.2.1" showname="Source" hide="no"/>'
        '<field name="ip.addr" show="192.0.2.1" hide="yes"/></proto></packet></pdml>'
    )
    slimmed = slim(pdml)
    assert 'name="ip.src" show="192.0.2.1"' in slimmed
    assert "ip.addr" not in slimmed
    assert "geninfo" not in slimmed


def test_failed_command_tells_what_it_said() -> None:
    with pytest.raises(CommandError, match="exit code 3\nso it is"):
        run(["sh", "-c", "echo so it is; exit 3"])
    assert run(["sh", "-c", "exit 3"], check=False).returncode == 3


def test_missing_command_is_named() -> None:
    with pytest.raises(CommandError, match="no-such-tool: not installed"):
        run(["no-such-tool"])


def test_waiting_ends_with_the_name_of_what_did_not_come() -> None:
    with pytest.raises(LabError, match="the end of the world"):
        wait_until(lambda: False, "the end of the world", timeout_s=0, every_s=0)
    assert wait_until(lambda: 7, "a number") == 7


def test_every_configuration_of_a_case_is_accepted(tmp_path: Path) -> None:
    from endpoint.config import load_config

    secret = tmp_path / "peer.psk"
    secret.write_text("a secret of the interop lab, known to everybody\n")
    secret.chmod(0o600)
    configs = [case.config("mplslab-red") for case in linux_pe.CASES]
    configs += [case.config("mplslab-red") for case in classes.CASES]
    configs += [case.config("mplslab-red") for case in strongswan.CASES]
    configs += [case.config("mplslab-red") for case in life.CASES]
    configs += [case.config("mplslab-red") for case in libreswan.CASES]
    configs += [case.config("mplslab-red") for case in paths.CASES]
    configs += [case.config("mplslab-red") for case in native.CASES]
    configs += [case.peer_config("mplslab-red") for case in native.CASES]
    for number, config in enumerate(configs):
        path = tmp_path / f"{number}.toml"
        path.write_text(config)
        assert load_config(path)
