"""A running saslauthd, asked by its socket."""

from pathlib import Path

from fubako.accounts.backends.interface import BackendDown, Verdict
from fubako.net import tcp
from fubako.protocol.saslauthd import Malformed, parse_answer, question


class Saslauthd:
    """It answers NO for a wrong password and for an unknown user alike. `service` is what PAM or its own configuration goes by."""

    name = "saslauthd"

    def __init__(self, path: Path, service: str = "imap") -> None:
        self._path, self._service = path, service

    async def check(self, user: str, password: str) -> Verdict:
        if "\x00" in user + password:  # it would end what Cyrus reads
            return Verdict.WRONG
        login, _, realm = user.partition("@")
        try:
            asked = question(login, password, self._service, realm)
        except Malformed:
            return Verdict.WRONG
        stream = await tcp.connect_unix(str(self._path))
        try:
            stream.write(asked)
            heard, said = b"", None
            while said is None:
                octets = await stream.read()
                if not octets:
                    raise BackendDown("saslauthd ended the connection")
                heard += octets
                said = parse_answer(heard)
        except Malformed as error:
            raise BackendDown(f"saslauthd: {error}") from None
        finally:
            stream.close()
        if said.startswith("OK"):
            return Verdict.HELD
        if "NO" not in said[:2] or "authentication server" in said:
            raise BackendDown(f"saslauthd said {said[:100]!r}")
        return Verdict.WRONG

    async def close(self) -> None:
        """There is nothing to close."""
