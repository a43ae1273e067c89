"""One module per exchange of IKEv2, and the table of which payloads each may hold (RFC 7296 1.2-1.4)."""
