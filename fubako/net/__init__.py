"""How bytes travel: streams over TCP, Unix sockets, standard input and memory, the TLS pump that all of them share, and DNS.

Owns every socket and every TLS object of the program. Never knows a mail protocol, and never decides whom to believe:
it reports the facts of a handshake.
"""
