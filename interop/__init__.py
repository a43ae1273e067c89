"""The interop lab: other people's IKE, ESP and MPLS in containers and guests decide whether we are right.

Must not know: our internals. It runs the command `mplsec` as a user would and looks at the wire.
"""
