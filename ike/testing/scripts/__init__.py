"""Scripts for `mplsec peer`: each does one thing wrong, or at the wrong time, and tells how the gateway took it.

A script is a file with a docstring, whose first line is its title, and `async def script(peer: ScriptedPeer) -> str`;
what it returns is the gateway's answer in a phrase.
"""
