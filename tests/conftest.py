"""What every test shares: what a machine must be able to do, and the virtual clock's neighbours.

A test marked `root` needs root, network namespaces and /dev/net/tun. Elsewhere it is listed as skipped, with the
reason; where CI is set nothing may be skipped, so there it fails instead.
"""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's affair; nothing here is a claim about time.
settings.register_profile("mplsec", deadline=None)
settings.load_profile("mplsec")


def _missing_for_root() -> str | None:
    if os.geteuid() != 0:
        return "needs root (network namespaces, TUN devices)"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    if shutil.which("ip") is None:
        return "needs ip (Debian's package iproute2)"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") is None:
        return
    missing = _missing_for_root()
    if missing is None:
        return
    if os.environ.get("CI"):
        pytest.fail(f"not to be skipped in CI: {missing}", pytrace=False)
    pytest.skip(missing)
