"""What tests of IKE peers are made of: virtual time, scripted entropy, an impaired network, broken messages.

Shipped, because whoever studies IKEv2 needs the same. Must not know sockets and clocks.
"""
