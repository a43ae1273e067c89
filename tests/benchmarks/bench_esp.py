"""What ESP costs for a packet of 1400 octets: the AEAD call alone, the reference, the batch.

python -m tests.benchmarks.bench_esp
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from esp.batch import open_batch, receive_batch, seal_batch
from esp.engine import InboundSad, protect, unprotect
from esp.errors import DropReason
from esp.replay import ReplayWindow
from esp.sa import FIRST_SPI, InboundSa, OutboundSa
from esp.transforms import transform_for
from tests.benchmarks.results import Result, interleave, print_interpreter, print_table, write

OCTETS = 1400
BATCH = 46
"""As many packets as one GSO send carries."""
BATCHES = 100
MANY = 10_000
MPLS_IN_IP = 137
SPI = b"\xc0\0\0\1"


def ns_per_packet(work: Callable[[], None]) -> Callable[[], float]:
    """Measures CPU time: what other processes do in between does not count."""

    def measure() -> float:
        gc.collect()
        start = time.process_time_ns()
        for _ in range(BATCHES):
            work()
        return (time.process_time_ns() - start) / (BATCHES * BATCH)

    return measure


def many_sas() -> Result:
    """Traffic of two SAs, sealed and received, with these alone installed and with MANY."""
    transform = transform_for(20, 256)
    payloads = [os.urandom(OCTETS) for _ in range(BATCH)]

    def with_sas(count: int) -> Callable[[], None]:
        sad, senders = InboundSad(), {}
        for number in range(FIRST_SPI, FIRST_SPI + count):
            spi, keys = number.to_bytes(4, "big"), os.urandom(36)
            sad.add(InboundSa(spi, transform, keys))
            senders[spi] = OutboundSa(spi, transform, keys)
        busy = [senders[spi] for spi in (min(senders), max(senders))]

        def work() -> None:
            for sender in busy:
                for _, outcomes in receive_batch(sad, seal_batch(sender, payloads, MPLS_IN_IP)):
                    if any(isinstance(one, DropReason) for one in outcomes):
                        raise SystemExit(f"packets were dropped: {outcomes}")

        return work

    ns = interleave({str(count): ns_per_packet(with_sas(count)) for count in (2, MANY)})
    both_sas = 2
    unit = f"ns per packet of {OCTETS}"
    return Result.cost(
        f"esp_sas_{MANY}_vs_2", unit, ns[str(MANY)] / both_sas, ns["2"] / both_sas, "2 SAs installed"
    )


def main() -> None:
    print_interpreter()
    transform, keys = transform_for(20, 256), os.urandom(36)
    aead, nonce, associated = AESGCM(keys[:32]), os.urandom(12), os.urandom(8)
    payloads = [os.urandom(OCTETS) for _ in range(BATCH)]
    sealed = [aead.encrypt(nonce, payload, associated) for payload in payloads]
    packets = seal_batch(OutboundSa(SPI, transform, keys), payloads, MPLS_IN_IP)
    sender = OutboundSa(SPI, transform, keys)
    receiver = InboundSa(SPI, transform, keys)

    def encrypt_alone() -> None:
        for payload in payloads:
            aead.encrypt(nonce, payload, associated)

    def decrypt_alone() -> None:
        for one in sealed:
            aead.decrypt(nonce, one, associated)

    def seal_reference() -> None:
        for payload in payloads:
            protect(sender, payload, MPLS_IN_IP)

    def open_reference() -> None:
        receiver.replay = ReplayWindow()
        for packet in packets:
            unprotect(receiver, packet)

    def seal() -> None:
        seal_batch(sender, payloads, MPLS_IN_IP)

    def open_() -> None:
        receiver.replay = ReplayWindow()
        open_batch(receiver, packets)

    works = (encrypt_alone, seal_reference, seal, decrypt_alone, open_reference, open_)
    ns = interleave({work.__name__: ns_per_packet(work) for work in works})
    if receiver.drops:
        raise SystemExit(f"packets were dropped: {receiver.drops}")
    unit = f"ns per packet of {OCTETS}"
    results = [
        Result.cost("esp_seal_1400", unit, ns["seal"], ns["encrypt_alone"], "the AES-GCM call alone"),
        Result.cost(
            "esp_seal_1400_vs_reference", unit, ns["seal"], ns["seal_reference"], "esp.engine.protect"
        ),
        Result.cost("esp_open_1400", unit, ns["open_"], ns["decrypt_alone"], "the AES-GCM call alone"),
        Result.cost(
            "esp_open_1400_vs_reference", unit, ns["open_"], ns["open_reference"], "esp.engine.unprotect"
        ),
    ]
    results.append(many_sas())
    print_table(results)
    print(
        f"the loops cost {ns['seal'] / ns['encrypt_alone']:.2f} and {ns['open_'] / ns['decrypt_alone']:.2f} "
        "times the AES-GCM call alone"
    )
    write(results)


if __name__ == "__main__":
    main()
