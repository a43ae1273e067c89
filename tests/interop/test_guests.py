"""A guest is set up by few programs: the same commands in the same order."""

from __future__ import annotations

import subprocess

from interop.guests import in_few_programs


def test_calls_of_ip_that_follow_each_other_are_one_batch_by_their_options() -> None:
    script = """ip link set lo up
ip addr add 10.0.0.1/24 dev lo
ip -n customer link set lo up
ip -f mpls route add 102 dev red
echo between
ip link set vec0 up
"""
    assert in_few_programs(script) == (
        "ip -batch - <<'END'\nlink set lo up\naddr add 10.0.0.1/24 dev lo\nEND\n"
        "ip -n customer -batch - <<'END'\nlink set lo up\nEND\n"
        "ip -f mpls -batch - <<'END'\nroute add 102 dev red\nEND\n"
        "echo between\n"
        "ip -batch - <<'END'\nlink set vec0 up\nEND\n"
    )


def test_what_needs_the_shell_stays_as_it_is() -> None:
    script = "ip addr add $address dev lo\nip link show >/dev/null\nfor card in a b; do ip link set $card up; done\n"
    assert in_few_programs(script) == script


def test_settings_are_written_to_their_files() -> None:
    assert in_few_programs("sysctl -qw net.ipv4.ip_forward=1 net.mpls.conf.to-red.input=0") == (
        "echo 1 >/proc/sys/net/ipv4/ip_forward\necho 0 >/proc/sys/net/mpls/conf/to-red/input\n"
    )


def test_the_first_error_of_any_program_ends_a_setup() -> None:
    script = "set -e\n" + in_few_programs("ip link set no-such-card-0 up\necho went on\n")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "went on" not in done.stdout
