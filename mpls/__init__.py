"""MPLS for IPsec: VRF and label-class selectors, label bindings, label spaces and the label data plane; sans-IO.

It must not know IKE messages, ESP or sockets: octets, small objects and times go in and come out.
"""

from mpls.binding_receiver import BindingReceiver
from mpls.binding_sender import BindingSender
from mpls.binding_table import RouteAdded, RouteChange, RouteRemoved
from mpls.bindings import BindingError, Entry, LabelBinding, LabelStatus
from mpls.capability import VENDOR_ID, Capability, CapabilityError
from mpls.cbor import CborError
from mpls.classes import LabelClass
from mpls.crypto_map import CryptoMap
from mpls.drops import DropReason
from mpls.encapsulation import Encapsulation
from mpls.identifiers import ClassId, IdentifierError, VrfId, parse_class
from mpls.label_space import LabelOwner, LabelSpace, LabelSpaceError, LabelState
from mpls.labels import LabelEntry, LabelStack
from mpls.routes import ForwardingTable
from mpls.selectors import TS_MPLS_VRF, MplsVrfSelector, SelectorError
from mpls.vrf import PrefixTable, Vrf

__all__ = [
    "TS_MPLS_VRF",
    "VENDOR_ID",
    "BindingError",
    "BindingReceiver",
    "BindingSender",
    "Capability",
    "CapabilityError",
    "CborError",
    "ClassId",
    "CryptoMap",
    "DropReason",
    "Encapsulation",
    "Entry",
    "ForwardingTable",
    "IdentifierError",
    "LabelBinding",
    "LabelClass",
    "LabelEntry",
    "LabelOwner",
    "LabelSpace",
    "LabelSpaceError",
    "LabelStack",
    "LabelState",
    "LabelStatus",
    "MplsVrfSelector",
    "PrefixTable",
    "RouteAdded",
    "RouteChange",
    "RouteRemoved",
    "SelectorError",
    "Vrf",
    "VrfId",
    "parse_class",
]
