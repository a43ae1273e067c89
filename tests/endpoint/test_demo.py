"""`mplsec demo`, as a user runs it; what it wrote is decoded by a program that is not ours (scapy)."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.utils import PcapNgReader


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a demo ran; its standard output is in the file `out`."""
    made = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "endpoint", "demo", "--json"]
    done = subprocess.run(
        [*command, "--capture", "demo.pcapng", "--keys", "keys"], cwd=made, capture_output=True, timeout=60
    )
    (made / "out").write_bytes(done.stdout)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    return made


def test_every_step_holds(folder: Path) -> None:
    document = json.loads((folder / "out").read_text())
    assert document.keys() == {"steps", "counters", "capture", "keys"}
    assert len(document["steps"]) == 11
    assert all(step["ok"] and step["evidence"] for step in document["steps"])
    drops = document["counters"]["pe2"]["drops"]
    assert drops == {"label_foreign": 1, "replay": 1, "cleartext_mpls": 1}


def test_scapy_decrypts_the_capture_down_to_labels_of_three_children(folder: Path) -> None:
    sas: dict[int, SecurityAssociation] = {}
    with (folder / "keys" / "esp_sa").open() as table:
        for row in csv.reader(line for line in table if not line.startswith("#")):
            spi, key = int(row[3], 16), bytes.fromhex(row[5][2:])
            # scapy takes the salt behind the key, as the table has it, and 16 octets of ICV
            sas[spi] = SecurityAssociation(ESP, spi=spi, crypt_algo="AES-GCM", crypt_key=key, esn_en=False)
    assert len(sas) >= 8, "three children and one rekeyed, both directions"
    labels: set[int] = set()
    decrypted = 0
    with PcapNgReader(str(folder / "demo.pcapng")) as reader:
        for frame in reader:
            packet = IP(bytes(frame)) if IP not in frame else frame[IP]
            payload = bytes(packet[UDP].payload)
            if payload[:4] == bytes(4):
                continue
            esp = ESP(payload)
            plain = sas[esp.spi].decrypt(IP(src=packet.src, dst=packet.dst, proto=50) / esp, verify=True)
            assert plain.proto == 137, "the ESP next header"
            stack = MPLS(bytes(plain.payload))
            assert stack.s == 1
            assert IP(bytes(stack.payload)).haslayer(ICMP)
            labels.add(stack.label)
            decrypted += 1
    assert decrypted > 600
    assert len(labels) >= 3


def test_the_example_decodes_the_capture(folder: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "decode_capture.py"
    command = [sys.executable, str(script), "demo.pcapng", "keys"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("next header 137 [1000" in line for line in lines) > 600
    assert sum(line.endswith(" replay") for line in lines) == 1
