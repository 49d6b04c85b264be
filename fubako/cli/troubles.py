"""What can go wrong with somebody else's server, and the exit code of each; `fetch`, `send`, `sieve` and `account` share it."""

from fubako.cli.exits import (
    CHANGED,
    CONFIG,
    DOWNGRADED,
    IOERR,
    NOPERM,
    NOT_BELIEVED,
    PROTOCOL,
    TEMPFAIL,
    TLS_REFUSED,
    UNAVAILABLE,
)  # fmt: skip
from fubako.client.connection import ClientError, LoginRefused, TlsRefused
from fubako.client.settings import SettingsError
from fubako.config import ConfigError
from fubako.message.address import AddressError
from fubako.net.interface import StreamClosed, StreamTimeout, TlsError
from fubako.protocol.engine import ProtocolError
from fubako.protocol.sasl import SaslFailure
from fubako.store.interface import StoreError, StoreUnavailable
from fubako.trust.judge import NotBelieved
from fubako.trust.known import CertificateChanged, Downgraded

# the first that fits
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (CertificateChanged, CHANGED), (Downgraded, DOWNGRADED), (NotBelieved, NOT_BELIEVED), (LoginRefused, NOPERM),
    (SaslFailure, NOPERM), (TlsRefused, TLS_REFUSED), (TlsError, TLS_REFUSED), (SettingsError, CONFIG), (ProtocolError, PROTOCOL),
    (StreamTimeout, TEMPFAIL), (StreamClosed, UNAVAILABLE), (ClientError, UNAVAILABLE), (StoreError, IOERR), (ConfigError, CONFIG),
    (AddressError, CONFIG), (OSError, IOERR),
)  # fmt: skip
TROUBLES = tuple(kind for kind, _ in _CODES)
# trying again does not help: a person has to look
FINAL = (NOT_BELIEVED, CHANGED, DOWNGRADED, NOPERM, CONFIG)


def code_of(error: Exception) -> int:
    """The exit code of one of TROUBLES."""
    if isinstance(error, StoreUnavailable):
        return error.fault.exit_code
    return next(code for kind, code in _CODES if isinstance(error, kind))
