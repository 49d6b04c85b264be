"""Exit codes (sysexits.h) and the one place where an error becomes a sentence."""

import sys
from typing import Any

import click

from fubako.cli.terminal import guard
from fubako.telemetry import visible

USAGE, DATAERR, NOINPUT, NOUSER, NOHOST, UNAVAILABLE, SOFTWARE, OSERR, CANTCREAT, IOERR, TEMPFAIL, PROTOCOL, NOPERM, CONFIG = (
    64, 65, 66, 67, 68, 69, 70, 71, 73, 74, 75, 76, 77, 78
)  # fmt: skip
# ours, behind those of sysexits.h: the server is not believed, changed its key, offers less than before, has no TLS for us
NOT_BELIEVED, CHANGED, DOWNGRADED, TLS_REFUSED = 80, 81, 82, 83


def _codes() -> tuple[tuple[type[Exception], int], ...]:
    """Loaded when something went wrong, not before."""
    from fubako.accounts.directory import EntryExists, NoSuchEntry
    from fubako.client.connection import ClientError, LoginRefused, TlsRefused
    from fubako.client.settings import SettingsError
    from fubako.config import ConfigError
    from fubako.net.interface import DnsFailure, StreamClosed, StreamTimeout, TlsError
    from fubako.policy.access import AccessError
    from fubako.protocol.engine import ProtocolError
    from fubako.protocol.sasl import SaslFailure
    from fubako.store.interface import StoreError
    from fubako.trust.judge import NotBelieved
    from fubako.trust.known import CertificateChanged, Downgraded

    return (
        (ConfigError, CONFIG),
        (DnsFailure, TEMPFAIL),
        (SettingsError, CONFIG),
        (AccessError, DATAERR),
        (NoSuchEntry, NOUSER),
        (EntryExists, CANTCREAT),
        (StoreError, UNAVAILABLE),
        (CertificateChanged, CHANGED),
        (Downgraded, DOWNGRADED),
        (NotBelieved, NOT_BELIEVED),
        (TlsRefused, TLS_REFUSED),
        (TlsError, TLS_REFUSED),
        (SaslFailure, NOPERM),
        (LoginRefused, NOPERM),
        (ClientError, PROTOCOL),
        (ProtocolError, PROTOCOL),
        (StreamClosed, UNAVAILABLE),
        (StreamTimeout, TEMPFAIL),
        (PermissionError, NOPERM),
        (FileNotFoundError, NOINPUT),
        (OSError, OSERR),
    )


def code_of(error: Exception) -> tuple[int, str]:
    """The exit code of an error, and the sentence that goes with it."""
    from fubako.store.interface import StoreUnavailable

    if isinstance(error, StoreUnavailable):
        return error.fault.exit_code, str(error)
    for kind, code in _codes():
        if isinstance(error, kind):
            return code, str(error)
    return SOFTWARE, f"an error of the program itself: {error!r}; please report it"


class Sentences(click.Group):
    """A group whose commands end with a sentence and a code, never with a traceback."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        options["standalone_mode"] = False
        guard()
        try:
            code = super().main(*arguments, **options)
            return code if isinstance(code, int) else 0
        except click.exceptions.Exit as end:
            return end.exit_code
        except click.Abort:
            click.echo("\nstopped", err=True)
            return 130
        except click.ClickException as error:
            error.show()
            return USAGE
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # whoever read our output has enough
            sys.stderr.close()
            return 0
        except Exception as error:
            exit_code, sentence = code_of(error)
            click.echo(f"fubako: {visible(sentence)}", err=True)
            return exit_code
