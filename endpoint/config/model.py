"""What a configuration says, as frozen values: the keys of the TOML file with their defaults filled in.

Knows nothing of files and of TOML. Names are those of the file; `_s` is seconds, None is without end.
"""

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from endpoint.config.problems import Problem
from endpoint.config.values import Address, AddressRange, Prefix
from esp.replay import DEFAULT_WINDOW
from ike.config import EngineSettings, Mode, RetransmitPolicy
from ike.crypto.signatures import PrivateKey, PublicKey
from ike.identities import IdentityPattern, parse_peer_name
from ike.wire.identity import Identity
from ike.wire.sa import Proposal
from mpls.classes import LabelClass
from mpls.crypto_map import Rule
from mpls.encapsulation import NO_GRE_OPTIONS, Encapsulation, GreOptions
from mpls.fit import DEFAULT_FITTING, Fitting
from mpls.identifiers import ClassId, VrfId
from mpls.models import Ecn, QosModel, TtlModel
from mpls.vrf import Labels, Urpf

ANY_ADDRESS = "any"
DEFAULT_STATE_DIR = Path("/var/lib/mplsec")
DEFAULT_LABEL_RANGE = (100_000, 199_999)
DEFAULT_LIVENESS_S = 30.0
EVERYTHING: tuple[Prefix, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


class Selectors(Enum):
    """How VRF and class are agreed with a peer."""

    NATIVE = "native"  # TS_MPLS_VRF, or nothing
    NATIVE_OR_PLAIN = "native-or-plain"
    SECLABEL = "seclabel"  # RFC 9478
    PLAIN = "plain"  # address selectors only


class Udp(Enum):
    """Whether ESP goes inside UDP (RFC 3948)."""

    AUTO = "auto"  # when a NAT is found
    ALWAYS = "always"
    NEVER = "never"


class Start(Enum):
    """What makes us create children."""

    TRAFFIC = "traffic"
    BOOT = "boot"
    NONE = "none"


class AttachmentKind(Enum):
    """The customer side of a VRF."""

    TUN = "tun"
    MEMORY = "memory"
    MPLS = "mpls"
    MPLS_IN_IP = "mpls-in-ip"
    MPLS_IN_GRE = "mpls-in-gre"


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """Where the underlay is: one of a namespace, a device, a mark."""

    netns: str | None = None
    device: str | None = None
    mark: int | None = None


class FlowLabel(Enum):
    """Of the outer IPv6 header of ESP (RFC 6437, RFC 4301 5.1.2.2)."""

    SYSTEM = "system"  # a hash of addresses and ports: one for all SAs between two hosts
    SA = "sa"  # one for each SA
    ZERO = "zero"


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """`[endpoint]`. `ike_port` 0: only `nat_port` is opened. `label_range`: what bindings are taken from.

    `window`: requests of a peer that are taken at once, and sent if it takes as many (RFC 7296 2.3).
    """

    identity: str
    addresses: tuple[str, ...]
    front_door: FrontDoor | None = None
    state_dir: Path = DEFAULT_STATE_DIR
    ike_port: int = 500
    nat_port: int = 4500
    label_range: tuple[int, int] = DEFAULT_LABEL_RANGE
    flow_label: FlowLabel = FlowLabel.SYSTEM
    window: int = EngineSettings().window


@dataclass(frozen=True, slots=True)
class AddressPair:
    """Two addresses of one family: of one VRF toward a plain peer, or of a tunnel toward an inner router."""

    local: str
    peer: str


@dataclass(frozen=True, slots=True)
class LabelledConfig:
    """What an attachment to a router that sends labels has beside.

    labels        whether they end here or go on
    local_labels, peer_label   as in `mpls.vrf.Attachment`
    device        `mpls`: the Ethernet interface; else the one that its packets must come in by, if given
    next_hop      `mpls`: the router's MAC address, or the IP address that it has on the interface
    tunnel        `mpls-in-ip` and `mpls-in-gre`: outer addresses
    gre           the options that are taken; none is sent (RFC 4023 4)
    """

    labels: Labels = Labels.POP
    local_labels: tuple[tuple[int, int], ...] = ()
    peer_label: int | None = None
    device: str | None = None
    next_hop: str = ""
    tunnel: AddressPair | None = None
    gre: GreOptions = NO_GRE_OPTIONS


@dataclass(frozen=True, slots=True)
class AttachConfig:
    """One attachment. `name`: the interface or the virtual host; `mtu` None: from the budget of the peers.

    `prefixes` lie behind it, beside the networks of `address`.
    """

    kind: AttachmentKind
    name: str
    netns: str | None = None
    address: tuple[str, ...] = ()
    mtu: int | None = None
    prefixes: tuple[Prefix, ...] = ()
    labelled: LabelledConfig | None = None

    @property
    def link(self) -> tuple[object, ...]:
        """What attachments have in common that share one link: there the topmost label tells them apart."""
        side = self.labelled
        if side is None:
            return self.kind, self.name
        return self.kind, self.netns, side.tunnel or side.device


class PathMtu(Enum):
    """Where the MTU of the path to a peer comes from."""

    FIXED = "fixed"  # it is that of the link
    PROBE = "probe"  # it is looked for


class LabelsPer(Enum):
    """What each label that we give out stands for."""

    VRF = "vrf"  # one label for a class of the VRF, all its prefixes behind it
    PREFIX = "prefix"  # a label for each announced prefix


@dataclass(frozen=True, slots=True)
class VrfConfig:
    """`[[vrf]]`. `classes` in the order in which they are tried; without any it is the single class 0."""

    name: str
    id: VrfId
    id_text: str
    classes: tuple[ClassId, ...] = (0,)
    urpf: Urpf = Urpf.STRICT
    attach: tuple[AttachConfig, ...] = ()
    announce: tuple[Prefix, ...] = ()
    labels_per: LabelsPer = LabelsPer.VRF
    ttl_model: TtlModel = TtlModel.PIPE

    @property
    def keeps_labels(self) -> bool:
        """Whether labels of the inside go on below the service label."""
        return any(one.labelled is not None and one.labelled.labels is Labels.KEEP for one in self.attach)

    @property
    def is_labelled(self) -> bool:
        """Whether packets with labels come from the inside."""
        return any(one.labelled is not None for one in self.attach)


@dataclass(frozen=True, slots=True)
class LeakConfig:
    """`[[leak]]`: prefixes that are in VRF `source` and may be reached from VRF `target`."""

    source: str
    target: str
    prefixes: tuple[Prefix, ...]


@dataclass(frozen=True, slots=True)
class StaticLabels:
    """Labels of one class toward a plain peer: `local` we accept, `peer` we send, `routes` lie behind it."""

    class_id: ClassId
    local: int
    peer: int
    routes: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerVrfConfig:
    """`[[peer.vrf]]`: what the identity may use. `name` is ours, `peer_id` what the peer calls it.

    `route_based`, of plain IP: the selectors are everything, and `accept` only says what is routed there.
    `routes`, of a native peer: what lies behind it whatever it announces, under its per-VRF label.
    """

    name: str
    peer_id: VrfId
    peer_id_text: str
    classes: tuple[ClassId, ...]
    accept: tuple[Prefix, ...] = ()
    labels: tuple[StaticLabels, ...] = ()
    addresses: AddressPair | None = None
    route_based: bool = False
    routes: tuple[Prefix, ...] = ()

    def labels_of(self, class_id: ClassId) -> StaticLabels | None:
        return next((labels for labels in self.labels if labels.class_id == class_id), None)


@dataclass(frozen=True, slots=True)
class PskAuthConfig:
    """The shared secret, read from its file."""

    psk: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NullAuthConfig:
    """No proof at all (RFC 7619)."""


@dataclass(frozen=True, slots=True)
class KeyAuthConfig:
    """Our private key, and our chain in DER, the end entity first; without one it is a raw public key (RFC 7670)."""

    key: PrivateKey = field(repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    rsa_pss: bool = True
    rsa_sha1: bool = False


@dataclass(frozen=True, slots=True)
class AnchorsConfig:
    """The peer proves itself by a certificate: trust anchors and revocation lists, all in DER."""

    anchors: tuple[bytes, ...] = field(repr=False)
    crls: tuple[bytes, ...] = field(default=(), repr=False)
    rsa_sha1: bool = False


@dataclass(frozen=True, slots=True)
class RawKeysConfig:
    """The peer proves itself by one of these keys."""

    keys: tuple[PublicKey, ...] = field(repr=False)
    rsa_sha1: bool = False


LocalAuthConfig = PskAuthConfig | KeyAuthConfig | NullAuthConfig
PeerAuthConfig = PskAuthConfig | AnchorsConfig | RawKeysConfig | NullAuthConfig


@dataclass(frozen=True, slots=True)
class LifetimeConfig:
    """`rekey` is the soft lifetime. Packets and octets (of payload) are those of one direction.

    `reauth_s`: after that time both ends prove again who they are.
    """

    child_rekey_s: float | None = 3600.0
    child_hard_s: float | None = 3960.0
    ike_rekey_s: float | None = 14400.0
    ike_hard_s: float | None = 15840.0
    child_rekey_octets: int | None = None
    child_hard_octets: int | None = None
    child_rekey_packets: int | None = None
    child_hard_packets: int | None = None
    reauth_s: float | None = None


class DummiesWhen(Enum):
    """RFC 4303 2.6 leaves it to the sender."""

    IDLE = "idle"  # nothing else was sent since the last look
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Dummies:
    """`dummies`: so many a second, on each child, about."""

    per_s: int = 1
    when: DummiesWhen = DummiesWhen.IDLE


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """`[[pool]]`: what peers get that ask for an address (RFC 7296 2.19).

    `fixed`: (identity, its addresses); nobody else gets those. `netmask`: tell the peer the prefix that its address
    is from, so that it takes all of it for reachable.
    """

    name: str
    ranges: tuple[AddressRange, ...]
    fixed: tuple[tuple[str, tuple[Address, ...]], ...] = ()
    dns: tuple[Address, ...] = ()
    domains: tuple[str, ...] = ()
    subnets: tuple[Prefix, ...] = ()
    netmask: bool = False


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """`[[peer]]`. `addresses` is ("any",) for one that we only answer; `port` is where IKE starts.

    `peer_auth`: what the peer may prove itself by; empty: the secret that is ours, too. With `pool` or `virtual_ip`
    the child is for the address that one end gets from the other.
    """

    name: str
    identity: str
    addresses: tuple[str, ...]
    auth: LocalAuthConfig
    ike: tuple[Proposal, ...]
    esp: tuple[Proposal, ...]
    ike_text: tuple[str, ...]
    esp_text: tuple[str, ...]
    vrfs: tuple[PeerVrfConfig, ...] = ()
    port: int = 500
    selectors: Selectors = Selectors.NATIVE
    mode: Mode = Mode.TRANSPORT
    encapsulation: Encapsulation = Encapsulation.MPLS_IN_IP
    udp: Udp = Udp.AUTO
    start: Start = Start.TRAFFIC
    strict_child: bool = False  # the label must belong to the very SA that carried it, also with a plain peer
    seclabel_in_auth: bool = False  # names may be sent in IKE_AUTH to a peer that is not childless
    gre: GreOptions = NO_GRE_OPTIONS  # what is taken; none is sent (RFC 4023 4)
    link_mtu: int = 1500
    access_overhead: int = 0  # octets of each packet that the line takes before IP: 8 with PPPoE
    probes_path: bool = False  # the path MTU is looked for (RFC 8899), else it is that of the link
    path_mtu_floor: int | None = None  # None: 576, or 1280 over IPv6
    tfc_octets: int = (
        0  # inner packets are padded to so many octets, or to what the path carries (RFC 4303 2.7)
    )
    replay_window: int = DEFAULT_WINDOW  # packets (RFC 4303 3.4.3), 0: none
    dummies: Dummies | None = None  # cover traffic (RFC 4303 2.6)
    tells_mismatch: bool = False  # of packets that are not what their SA is for: INVALID_SELECTORS
    ecn: Ecn = Ecn.OFF
    fitting: Fitting = DEFAULT_FITTING  # what is done with packets that are too large
    fragmentation: bool = True  # of IKE messages, RFC 7383
    fragment_size: int = 1280  # octets of the largest IP packet
    lifetime: LifetimeConfig = LifetimeConfig()
    liveness_s: float | None = DEFAULT_LIVENESS_S
    retransmit_tries: int = RetransmitPolicy().tries  # of a request, until the peer counts as gone
    mobike: bool = False
    peer_auth: tuple[PeerAuthConfig, ...] = ()
    pool: str | None = None  # the peer asks us for its address
    virtual_ip: bool = False  # we ask the peer for ours
    max_clients: int = 1  # of all whom a wildcard identity stands for, so many at a time

    @property
    def proofs(self) -> tuple[PeerAuthConfig, ...]:
        return self.peer_auth or ((self.auth,) if isinstance(self.auth, PskAuthConfig) else ())

    @property
    def is_several(self) -> bool:
        """Whether its identity stands for more than one peer, or for nobody in particular."""
        name = parse_peer_name(self.identity)
        return isinstance(name, IdentityPattern) or name == Identity.null()

    @property
    def is_shared(self) -> bool:
        """Whether several clients have it at a time, each with SAs, routes and labels of its own."""
        return self.max_clients > 1

    @property
    def why_not_shared(self) -> str:
        """What keeps several clients from having it at a time; empty if nothing does."""
        if not self.identity or not self.is_several:
            return "the identity is that of one peer"
        if self.identity == "null":
            return "peers without identity cannot be told apart"
        if not self.is_any:
            return 'many clients are at many addresses: addresses is not ["any"]'
        if any(vrf.route_based or vrf.routes or vrf.labels or vrf.addresses for vrf in self.vrfs):
            return "labels, routes or addresses of [[peer.vrf]], and route_based, are for one peer"
        is_plain_ip = self.encapsulation is Encapsulation.NONE and self.mode is Mode.TUNNEL
        if self.selectors is not Selectors.NATIVE and not is_plain_ip:
            return 'only selectors = "native", or plain IP in tunnel mode, tell clients apart'
        return ""

    @property
    def is_any(self) -> bool:
        """Whether the peer's address is unknown until it calls."""
        return self.addresses == (ANY_ADDRESS,)

    def vrf(self, name: str) -> PeerVrfConfig | None:
        return next((vrf for vrf in self.vrfs if vrf.name == name), None)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration, consistent in itself.

    `crypto_map` holds the rules of `[[crypto_map]]`; they come before those that VRFs and classes give.
    `warnings` are what is allowed but probably not meant.
    """

    file: str
    endpoint: EndpointConfig
    vrfs: tuple[VrfConfig, ...]
    classes: tuple[LabelClass, ...]
    peers: tuple[PeerConfig, ...]
    pools: tuple[PoolConfig, ...] = ()
    crypto_map: tuple[Rule, ...] = ()
    leaks: tuple[LeakConfig, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def vrf(self, name: str) -> VrfConfig | None:
        return next((vrf for vrf in self.vrfs if vrf.name == name), None)

    def peer(self, name: str) -> PeerConfig | None:
        return next((peer for peer in self.peers if peer.name == name), None)

    def label_class(self, class_id: ClassId) -> LabelClass:
        """The class's `[[class]]`; one without a table matches everything."""
        return next((one for one in self.classes if one.id == class_id), LabelClass(class_id))

    @property
    def is_uniform(self) -> bool:
        """Whether DSCP or TTL of the underlay are to count somewhere."""
        return any(vrf.ttl_model is TtlModel.UNIFORM for vrf in self.vrfs) or any(
            one.qos_model is QosModel.UNIFORM for one in self.classes
        )

    @property
    def watches_outer(self) -> bool:
        """Whether DSCP, ECN and TTL of outer headers, and whether packets come in fragments, are looked at."""
        return self.is_uniform or any(peer.ecn is Ecn.COPY or peer.probes_path for peer in self.peers)

    def starts_on_nat_port(self, peer: PeerConfig) -> bool:
        """Whether IKE with this peer begins on the port that also carries ESP (RFC 7296 2.23 allows it)."""
        return peer.port == self.endpoint.nat_port
