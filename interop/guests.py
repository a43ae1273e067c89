"""A Linux machine as a process: user-mode-linux on a root file system of ours, with taps as its cards.

Must not know: MPLS, IKE, or what a case wants from the machine.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import os
import re
import secrets
import select
import subprocess
import time
from pathlib import Path

from .processes import CommandError, LabError, environment, in_namespace, kill_group, tail

IP_LINE = r"^ip ((?:-n \S+ |-f \S+ |-6 )*)"
START = f"busybox mount -t hostfs -o {Path(__file__).parent} none /srv; exec busybox sh /srv/guest-init"
"""What the kernel starts: our init, from where it is, so that nothing is written to the root file system."""
NOT_AT_BOOT = "raid6_select_algo,calibrate_xor_blocks"
"""The kernel measures for almost a second of processor time which of its RAID code is quickest, unless told not to."""


class Guest:
    """A running guest; `sh` runs a script on its console. A context manager: it is ended on leaving.

    `share` is a folder of the host that the guest sees, writable, as /share.
    """

    def __init__(
        self,
        name: str,
        *,
        root: Path,
        kernel: Path,
        netns: str,
        taps: list[str],
        share: Path,
        state: Path,
        modules: tuple[str, ...] = (),
        memory: str = "192M",
        boot_timeout_s: float = 60,
    ) -> None:
        self.name = name
        self.share = share
        share.mkdir(parents=True, exist_ok=True)
        state.mkdir(parents=True, exist_ok=True)
        self._token = f"lab-{secrets.token_hex(8)}"
        self._pending = b""
        self._log = (share / "console.log").open("wb")
        cards = [
            f"vec{i}:transport=tap,ifname={tap},depth=128,mac={_hardware_address(name, i)}"
            for i, tap in enumerate(taps)
        ]
        command: list[str | Path] = [
            kernel / "usr/bin/linux.uml",
            f"mem={memory}",
            *("con=null", "con0=fd:0,fd:1", "console=tty0", "quiet", f"initcall_blacklist={NOT_AT_BOOT}"),
            f"umid={name}",
            f"uml_dir={state}",
            *("root=/dev/root", "rootfstype=hostfs", f"rootflags={root}", "ro", "init=/bin/busybox"),
            f"lab.name={name}",
            f"lab.token={self._token}",
            f"lab.share={share}",
            f"lab.modules={kernel / 'usr/lib/uml/modules'}",
            f"lab.load={','.join(modules)}",
            *cards,
            *("--", "sh", "-c", f'"{START}"'),
        ]
        from_us, self._input = os.pipe()
        self._output, to_us = os.pipe()
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *in_namespace(netns, command)],
            stdin=from_us,
            stdout=to_us,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
        os.close(from_us)
        os.close(to_us)
        try:
            _, self.kernel_version = self._answer(boot_timeout_s)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def sh(self, script: str, *, timeout_s: int = 30, check: bool = True) -> str:
        """Run a shell script in the guest; its output. `CommandError` if its exit code is not 0."""
        encoded = base64.b64encode(script.encode()).decode()
        try:
            os.write(self._input, f"{timeout_s} {encoded}\n".encode())
        except BrokenPipeError as error:
            raise LabError(f"guest {self.name} is gone") from error
        output, code = self._answer(timeout_s + 10)
        if check and code != "0":
            raise CommandError(f"guest {self.name}: {script.strip()}: exit code {code}\n{tail(output)}")
        return output

    def setup(self, script: str) -> None:
        """Run a shell script of many lines of `ip` and `sysctl -qw` with few programs; the first error ends it."""
        self.sh("set -e\n" + in_few_programs(script))

    def stop(self) -> None:
        """Power off; kill what does not end by itself. Harmless when already ended."""
        if self._log.closed:
            return
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.write(self._input, b"end\n")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(4)
        kill_group(self._process)  # its helper processes too
        os.close(self._input)
        os.close(self._output)
        self._log.close()

    def _answer(self, timeout_s: float) -> tuple[str, str]:
        """Console output up to the next line with our token, and the word after the token."""
        pattern = re.compile(rb"\r?\n?" + self._token.encode() + rb" (\S+)\r?\n")
        end = time.monotonic() + timeout_s
        while (found := pattern.search(self._pending)) is None:
            ready, _, _ = select.select([self._output], [], [], max(0.0, end - time.monotonic()))
            octets = os.read(self._output, 65536) if ready else b""
            if not octets:
                reason = "has ended" if ready else f"gave no answer for {timeout_s:g} s"
                raise LabError(f"guest {self.name} {reason}\n{tail(self._pending.decode(errors='replace'))}")
            self._log.write(octets)
            self._log.flush()
            self._pending += octets
        output = self._pending[: found.start()].decode(errors="replace").replace("\r", "")
        self._pending = self._pending[found.end() :]
        return output, found[1].decode()


def in_few_programs(script: str) -> str:
    """The same script: lines of `ip` that follow each other go to one `ip -batch`, and `sysctl -qw` to the files.

    The start of a program is what takes time in a guest.
    """
    lines: list[str] = []
    batches = itertools.groupby(script.splitlines(), key=_batch_of)
    for options, group in batches:
        if options is None:
            lines += [_written_setting(line) for line in group]
        else:
            commands = [re.sub(IP_LINE, "", line) for line in group]
            lines += [f"ip {options}-batch - <<'END'", *commands, "END"]
    return "\n".join(lines) + "\n"


def _batch_of(line: str) -> str | None:
    """The options of a line that is nothing but one call of `ip`; None for another line."""
    found = re.match(IP_LINE, line)
    return found[1] if found and not set(line) & set("$;&|<>'\"") else None


def _written_setting(line: str) -> str:
    """`sysctl -qw NAME=VALUE …` as words of the shell; another line as it is."""
    if not line.startswith("sysctl -qw "):
        return line
    pairs = [word.split("=") for word in line.split()[2:]]
    return "\n".join(f"echo {value} >/proc/sys/{name.replace('.', '/')}" for name, value in pairs)


def _hardware_address(name: str, card: int) -> str:
    """Of a card: that of no other guest, which may be on the same segment."""
    octets = b"\x02" + hashlib.sha256(f"{name} {card}".encode()).digest()[:5]
    return octets.hex(":")
