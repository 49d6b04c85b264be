"""SASL: one mechanism a file, both sides as generators that are stepped (RFC 4422).

A server's side yields `Challenge` and is sent the response, or yields `Lookup` and is sent what the account store knows;
it returns `Success` or raises `SaslFailure`. A client's side yields responses and is sent challenges.
Never stores a password and never draws a random number.
"""

from fubako.protocol.sasl.mechanism import Binding, Challenge, Lookup, SaslFailure, Success
from fubako.protocol.sasl.offer import Offer, Proofs, client, offered, server

__all__ = ["Binding", "Challenge", "Lookup", "Offer", "Proofs", "SaslFailure", "Success", "client", "offered", "server"]
