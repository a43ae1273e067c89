"""What the system can refuse while mplsec starts: one exception, one line, with the remedy.

Must not know: sockets, devices, protocols.
"""

from __future__ import annotations

__all__ = ["SetupError"]


class SetupError(Exception):
    """The system refused something that mplsec needs; the text is one line and names the remedy."""
