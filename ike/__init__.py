"""IKEv2 (RFC 7296) without IO: octets and time in, datagrams and events out.

`IkeEngine` is the whole of it; `ike.testing` joins two of them on virtual time. Must not know sockets and
clocks.
"""

from ike.config import (
    ChildConfig,
    Connection,
    EngineSettings,
    Extension,
    Mode,
    NullAuth,
    Path,
    PeerSignature,
    PskAuth,
    RetransmitPolicy,
    SignatureAuth,
    TrafficPolicy,
    Trust,
)
from ike.configuration import AddressRequest, Configuration
from ike.engine import IkeEngine
from ike.entropy import Entropy, SystemEntropy
from ike.errors import IkeError, LocalError, ParseError, SchemaError, UntrustedError
from ike.events import (
    AddressesUnused,
    ChildSa,
    ChildSaClosed,
    ChildSaDeletionBegun,
    ChildSaEstablished,
    ChildSaFailed,
    CloseReason,
    Datagram,
    Deadline,
    Direction,
    DropReason,
    Event,
    FailureReason,
    IkeKeyLogEntry,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaRekeyed,
    NotifyAnswered,
    PathRefused,
    PeerAddressChanged,
    ProbeAnswered,
    SessionSnapshot,
    TraceRecord,
)
from ike.life import LifeKind, LifeRecord
from ike.proposals import format_proposal, parse_esp_proposal, parse_ike_proposal
from ike.selectors import AddressSelector, DynamicSelector, SelectorRegistry, SelectorType, TrafficSelectors
from ike.wire.identity import Identity
from ike.wire.message import Message, SealedBody
from ike.wire.payloads import NotifyPayload
from ike.x509 import TrustStore

__all__ = [
    "AddressRequest",
    "AddressSelector",
    "AddressesUnused",
    "ChildConfig",
    "ChildSa",
    "ChildSaClosed",
    "ChildSaDeletionBegun",
    "ChildSaEstablished",
    "ChildSaFailed",
    "CloseReason",
    "Configuration",
    "Connection",
    "Datagram",
    "Deadline",
    "Direction",
    "DropReason",
    "DynamicSelector",
    "EngineSettings",
    "Entropy",
    "Event",
    "Extension",
    "FailureReason",
    "Identity",
    "IkeEngine",
    "IkeError",
    "IkeKeyLogEntry",
    "IkeSaClosed",
    "IkeSaEstablished",
    "IkeSaFailed",
    "IkeSaRekeyed",
    "LifeKind",
    "LifeRecord",
    "LocalError",
    "Message",
    "Mode",
    "NotifyAnswered",
    "NotifyPayload",
    "NullAuth",
    "ParseError",
    "Path",
    "PathRefused",
    "PeerAddressChanged",
    "PeerSignature",
    "ProbeAnswered",
    "PskAuth",
    "RetransmitPolicy",
    "SchemaError",
    "SealedBody",
    "SelectorRegistry",
    "SelectorType",
    "SessionSnapshot",
    "SignatureAuth",
    "SystemEntropy",
    "TraceRecord",
    "TrafficPolicy",
    "TrafficSelectors",
    "Trust",
    "TrustStore",
    "UntrustedError",
    "format_proposal",
    "parse_esp_proposal",
    "parse_ike_proposal",
]
