"""The exceptions of `ike` (RFC 7296 sections 2.21 and 3 decide which notify, if any, each becomes).

Must not know: which exchange is running, or what is sent about an error.
"""


class IkeError(Exception):
    """Everything that `ike` raises on purpose."""


class ParseError(IkeError, ValueError):
    """Octets that RFC 7296 section 3 does not allow: a wrong length, count or structure (INVALID_SYNTAX)."""


class SchemaError(IkeError):
    """Well-formed payloads that do not belong together in this exchange, or are missing from it."""


class LocalError(IkeError):
    """Wrong use of this library by its caller; never caused by what a peer sends."""


class UntrustedError(IkeError):
    """A certificate chain that does not prove the identity it came with; the text says why."""
