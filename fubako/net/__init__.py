"""How bytes travel: streams over TCP, Unix sockets and memory, and the TLS pump that all of them share.

Owns every socket and every TLS object of the program. Never knows a protocol, and never decides whom to believe:
it reports the facts of a handshake.
"""
