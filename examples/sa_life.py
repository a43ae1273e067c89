"""The life of two SAs that are rekeyed by both ends at once, over a network that loses every fifth datagram."""

import ike
from ike.testing.link import ImpairedLink
from ike.testing.pair import Pair, connections

ESP = (ike.parse_esp_proposal("aes256gcm16"),)
EVERYTHING = (ike.DynamicSelector(),)
CHILD = ike.ChildConfig("net", ESP, ike.Mode.TUNNEL, EVERYTHING, EVERYTHING)


def show(name: str, record: ike.TraceRecord | ike.LifeRecord) -> None:
    match record:
        case ike.TraceRecord():
            what = f"{record.direction.value:8} {record.summary}"
        case ike.LifeRecord(kind=ike.LifeKind.RETRANSMISSION):
            what = f"request {record.message_id} again, {record.detail}"
        case _:
            what = f"{record.kind.value}: {record.detail}"
    print(f"{record.at:7.3f} {name:5} {record.spi_i.hex()[:8]:8} {what}")


def main() -> None:
    pair = Pair(*connections(CHILD), link=ImpairedLink(seed=4, loss=0.2))
    for side in (pair.left, pair.right):
        side.engine.subscribe(lambda record, name=side.name: show(name, record))
    pair.initiate()
    pair.run(10)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(10)
    for side in (pair.left, pair.right):
        for spi_in in side.children:
            side.engine.rekey_child(side.session, spi_in, pair.now)
    pair.run(20)


if __name__ == "__main__":
    main()
