"""Every setting, frozen and typed. TOML in; an unknown key is an error with its path; nobody else reads a configuration.

The reference in docs/configuration.md is generated from the definitions here.
"""

from fubako.config.addresses import ConfigError, Network, is_loopback, networks, split_address
from fubako.config.file import Config, load, parse, possible_mechanisms, warnings
from fubako.config.inbound import ContentFilter, DnsListing, Inbound, Milter, Rates
from fubako.config.listening import AUTH_SERVERS, SERVICES, UNIX_SERVICES, Certificate, Limits, Listen, Ssh, Tls
from fubako.config.logins import MECHANISMS, KerberosTickets, Login, OAuth, PasswordBackend
from fubako.config.outbound import Dns, MasqueradeAs, Queue, Reports, Route, Submission
from fubako.config.reference import reference
from fubako.config.scanning import Scan

__all__ = [
    "AUTH_SERVERS", "MECHANISMS", "SERVICES", "UNIX_SERVICES", "Certificate", "Config", "ConfigError", "ContentFilter", "Dns",
    "DnsListing", "Inbound", "KerberosTickets", "Limits", "Listen", "Login", "MasqueradeAs", "Milter", "Network", "OAuth",
    "PasswordBackend", "Queue", "Rates", "Reports", "Route", "Scan", "Ssh", "Submission", "Tls", "is_loopback", "load", "networks",
    "parse", "possible_mechanisms", "reference", "split_address", "warnings",
]  # fmt: skip
