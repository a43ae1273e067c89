"""The endpoint: configuration, sockets, devices, data plane and commands around ike, esp and mpls.

It moves things between the three and decides nothing about their protocols.
"""
