"""The wire format of IKEv2, without state (RFC 7296 section 3).

Must not know: keys, exchanges, time.
"""
