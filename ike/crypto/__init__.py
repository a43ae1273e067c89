"""The cryptography of IKEv2 as plain functions and small objects; sees no messages, no SAs and no policy."""
