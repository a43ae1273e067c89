"""The command line: `mplsec demo | run | check | explain | status | initiate | terminate | rekey | …`.

Exit codes: 0 done, 1 failed (the reason on stderr), 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib.metadata
import json
import logging
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from endpoint.control import DEFAULT_SOCKET, ControlError, call
from endpoint.errors import SetupError

__all__ = ["main"]

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    command: Command = options.handler
    try:
        return command(options)
    except (ControlError, SetupError, OSError) as error:
        print(f"mplsec: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mplsec",
        description="IKEv2 and ESP for MPLS-in-IP and MPLS-in-GRE: VRF and label class are negotiated.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, handler: Command, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(handler=handler)
        return command

    demo = add("demo", _demo, "two PEs in one process: negotiate, send, attack, rekey; needs no privileges")
    demo.add_argument("--capture", type=Path, metavar="FILE", help="write what went over the wire (pcapng)")
    demo.add_argument("--keys", type=Path, metavar="DIR", help="write Wireshark's key tables")
    demo.add_argument("--json", action="store_true", help="print one JSON document instead of the story")

    run = add("run", _run, "run this endpoint until SIGTERM or SIGINT")
    run.add_argument("config", type=Path, metavar="CONFIG")
    run.add_argument("--control", type=Path, metavar="SOCKET", default=DEFAULT_SOCKET)
    run.add_argument("--keys", type=Path, metavar="DIR", help="write Wireshark's key tables (secrets!)")
    run.add_argument("--capture", type=Path, metavar="FILE", help="write what goes over the wire (pcapng)")
    run.add_argument("--verbose", action="store_true", help="log every IKE message")

    check = add("check", _check, "check a configuration; print the crypto map and the MTU budgets")
    check.add_argument("config", type=Path, metavar="CONFIG")

    explain = add("explain", _explain, "say what becomes of a packet from a customer, and why")
    explain.add_argument("config", type=Path, metavar="CONFIG")
    explain.add_argument("packet", metavar="PACKET", help="octets in hex, or a pcap or pcapng file")
    explain.add_argument("--attachment", metavar="NAME", help="where it comes in, if that is not plain")
    explain.add_argument("--json", action="store_true", help="print one JSON document")

    status = add("status", _status, "peers, Child SAs, labels, routes and counters of a running endpoint")
    initiate = add("initiate", _peer_command("initiate"), "bring up a peer, or one of its children")
    terminate = add("terminate", _peer_command("terminate"), "delete a peer's IKE SA, or one of its children")
    rekey = add("rekey", _peer_command("rekey"), "rekey a peer's children, or one of them, or the IKE SA")
    for command in (initiate, terminate, rekey):
        command.add_argument("peer", metavar="PEER")
        command.add_argument("--child", metavar="NAME", help="one child, as `mplsec status` names it")
    rekey.add_argument("--ike", action="store_true", help="the IKE SA instead of the children")
    rekey.add_argument(
        "--reauth", action="store_true", help="a new IKE SA, with all children: authenticate again"
    )
    for command in (status, initiate, terminate, rekey):
        command.add_argument("--control", type=Path, metavar="SOCKET", default=DEFAULT_SOCKET)
        command.add_argument("--json", action="store_true", help="print one JSON document")

    peer = add("peer", _peer, "run a script as IKE peer, right or wrong, against a gateway")
    peer.add_argument("script", metavar="SCRIPT", help="a file, or the name of a shipped script (see --list)")
    peer.add_argument(
        "config", type=Path, metavar="CONFIG", help="who we are, and which [[peer]] is the gateway"
    )
    peer.add_argument("--peer", metavar="NAME", help="the gateway, if CONFIG has several peers")
    peer.add_argument("--json", action="store_true", help="print one JSON document")
    peer.add_argument("--list", action=_ListScripts, help="print the shipped scripts and end")

    add("genkey", _genkey, "print a new pre-shared key of 256 bits")
    add("version", _version, "print the version")
    return parser


def _reads_config(command: Command) -> Command:
    """Exit code 2 and all errors for a configuration that cannot be used.

    What reads one imports the protocols, and that takes longer than a question to a running endpoint.
    """

    @functools.wraps(command)
    def guarded(options: argparse.Namespace) -> int:
        from endpoint.config import ConfigError

        try:
            return command(options)
        except ConfigError as error:
            print(error, file=sys.stderr)
            return 2

    return guarded


def _demo(options: argparse.Namespace) -> int:
    from endpoint.demo import run_demo

    return run_demo(capture=options.capture, keys=options.keys, as_json=options.json)


@_reads_config
def _run(options: argparse.Namespace) -> int:
    from endpoint.config import load_config
    from endpoint.run import run_endpoint

    config = load_config(options.config)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    # No line names its thread, process, task or source: without looking for them it costs less.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("pyroute2").setLevel(logging.WARNING)
    return asyncio.run(
        run_endpoint(config, control=options.control, keys=options.keys, capture=options.capture)
    )


@_reads_config
def _check(options: argparse.Namespace) -> int:
    from endpoint.check import render_check
    from endpoint.config import load_config

    print(render_check(load_config(options.config)))
    return 0


@_reads_config
def _explain(options: argparse.Namespace) -> int:
    from endpoint.config import load_config
    from endpoint.explain import Explainer, ExplainError
    from endpoint.explain_text import render_explanation
    from endpoint.packets import PacketError, read_packets

    config = load_config(options.config)
    try:
        packets = read_packets(options.packet)
        explainer = Explainer(config)
        found = [explainer.explain(packet, options.attachment) for packet in packets]
    except (ExplainError, PacketError) as error:
        print(f"mplsec explain: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"packets": [asdict(one) for one in found]}, indent=2))
    else:
        print("\n\n".join(render_explanation(one) for one in found))
    return 0


def _status(options: argparse.Namespace) -> int:
    from endpoint.status import render_status

    answer = call(options.control, "status", {})
    print(json.dumps(answer, indent=2) if options.json else render_status(answer))
    return 0


def _peer_command(name: str) -> Command:
    def command(options: argparse.Namespace) -> int:
        request: dict[str, Any] = {"peer": options.peer}
        if options.child is not None:
            request["child"] = options.child
        for flag in ("ike", "reauth"):
            if getattr(options, flag, False):
                request[flag] = True
        answer = call(options.control, name, request)
        print(json.dumps(answer, indent=2) if options.json else answer["text"])
        return 0

    return command


class _ListScripts(argparse.Action):
    """`mplsec peer --list`, without the arguments that running a script needs."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from endpoint.peer import load_script, shipped_scripts

        for name in shipped_scripts():
            print(f"{name:20} {load_script(name).title}")
        parser.exit()


@_reads_config
def _peer(options: argparse.Namespace) -> int:
    from endpoint.config import load_config
    from endpoint.peer import ScriptFileError, load_script, run_peer

    try:
        script = load_script(options.script)
        return run_peer(script, load_config(options.config), options.peer, as_json=options.json)
    except ScriptFileError as error:
        print(f"mplsec peer: {error}", file=sys.stderr)
        return 2


def _genkey(_: argparse.Namespace) -> int:
    print("0x" + secrets.token_hex(32))
    return 0


def _version(_: argparse.Namespace) -> int:
    print(f"mplsec {importlib.metadata.version('mplsec')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
