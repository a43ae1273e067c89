"""Scapy opens what we protect and we what scapy does: 1,000 packets of every transform, mode and encapsulation."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.esp.test_scapy import SHAPES, SUITE_NAMES
from tests.soak.run import Run

PACKETS = 1000
LIMIT_S = 3600.0


def soak(run: Run) -> None:
    """One transform in both directions is a case; tests/esp/test_scapy.py does it, with more packets.

    The last is of those that scapy has but for their IV or the length of their ICV.
    """
    names = [*SUITE_NAMES, "short_icv_and_implicit_iv"]
    packets = str(max(2, round(PACKETS * run.scale)))
    for number in run.cases(len(names)):
        name = names[number]
        command = [sys.executable, "-m", "pytest", "-q", "tests/esp/test_scapy.py", "-k", name]
        environment = os.environ | {"MPLSEC_SCAPY_PACKETS": packets}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stdout[-3000:]}"
        run.step(f"{name}, modes and encapsulations: {', '.join(SHAPES)}")
