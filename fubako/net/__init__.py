"""How bytes travel: streams over TCP, Unix sockets, standard input and memory, the TLS pump that all of them share, SOCKS and
PROXY; SSH and Kerberos by their libraries; and questions to DNS, to web servers and to programs.

Owns every socket and every TLS object of the program. Never knows a mail protocol, and never decides whom to believe:
it reports the facts of a handshake.
"""
