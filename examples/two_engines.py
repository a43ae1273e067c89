"""Two IKEv2 engines negotiate a Child SA without socket or clock: time is a number, the network a list."""

import ike

MPLS_IN_IP = (ike.DynamicSelector(protocol=137),)
ESP = (ike.parse_esp_proposal("aes256gcm16"),)
CHILD = ike.ChildConfig("mpls", ESP, ike.Mode.TRANSPORT, MPLS_IN_IP, MPLS_IN_IP)
PATH = ike.Path(local=("192.0.2.1", 500), peer=("192.0.2.2", 500))


def engine(name: str, peer: str) -> ike.IkeEngine:
    auth, proposals = ike.PskAuth(b"correct horse"), (ike.parse_ike_proposal("aes256gcm16-prfsha384-x25519"),)
    ids = ike.Identity.fqdn(name), ike.Identity.fqdn(peer)
    connection = ike.Connection("peer", *ids, auth, proposals, (CHILD,))
    return ike.IkeEngine(
        [connection], entropy=ike.SystemEntropy(), trace=lambda record: print(f"{name}  {record.summary}")
    )


def main() -> None:
    left, right = engine("pe1.example", "pe2.example"), engine("pe2.example", "pe1.example")
    now, is_busy = 0.0, True
    left.initiate("peer", PATH, now)
    while is_busy:
        now, is_busy = now + 0.01, False
        for sender, receiver in ((left, right), (right, left)):
            while (event := sender.next_event()) is not None:
                if isinstance(event, ike.IkeSaEstablished) and event.is_opener:
                    sender.create_child(event.session, "mpls", now)
                if isinstance(event, ike.ChildSaEstablished):
                    print(f"Child SA: {event.child.spi_in.hex()} in, {event.child.spi_out.hex()} out")
            for datagram in sender.datagrams_to_send(now):
                arriving = ike.Path(local=datagram.path.peer, peer=datagram.path.local)
                receiver.receive_datagram(datagram.data, arriving, now)
                is_busy = True


if __name__ == "__main__":
    main()
