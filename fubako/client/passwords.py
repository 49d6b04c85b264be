"""Where an account's password is: a file or a netrc of mode 0600, a command, the system's keyring; never in accounts.toml."""

import asyncio
import netrc
import os
import stat
from pathlib import Path

from fubako.client.settings import Account, SettingsError
from fubako.net.program import talk

PASSWORD_SECONDS = 60.0
_SERVICE = "fubako"


async def password(account: Account) -> str:
    """Raises SettingsError."""
    if account.password_command:
        try:
            code, said, _ = await talk(account.password_command, b"", PASSWORD_SECONDS)
        except (OSError, TimeoutError) as error:
            raise SettingsError(f"password_command of {account.name}: {error}") from None
        if code or not said:
            raise SettingsError(f"password_command of {account.name} ended with {code}")
        return said.partition(b"\n")[0].decode()
    if account.password_keyring:
        return await asyncio.to_thread(from_keyring, account.name)
    if account.password_netrc:
        return await asyncio.to_thread(_from_netrc, Path(account.password_netrc), account)
    if not account.password_file:
        return ""
    return await asyncio.to_thread(_from_file, Path(account.password_file))


def _private(path: Path) -> None:
    """Raises SettingsError, OSError."""
    facts = path.stat()
    if stat.S_IMODE(facts.st_mode) & 0o077 or facts.st_uid not in (os.getuid(), 0):
        raise SettingsError(f"{path} can be read by others; chmod 600 {path}")


def _from_file(given: Path) -> str:
    path = given.expanduser()
    try:
        _private(path)
        return path.read_text().partition("\n")[0]
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None


def _from_netrc(given: Path, account: Account) -> str:
    """`machine` is the account's name, the server's name or its host; `login` is its user, where one is written."""
    path = given.expanduser()
    try:
        _private(path)
        machines = netrc.netrc(path).hosts
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (netrc.NetrcParseError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None
    for name in (
        account.name.removeprefix(f"{account.user}@"),
        account.server_name or account.host,
        account.host,
        "default",
    ):
        if name in machines:
            login, _, words = machines[name]
            if words and login in ("", None, account.user):
                return words
    raise SettingsError(f"{path} has no password of {account.user} at {account.host}")


def from_keyring(name: str) -> str:
    """Raises SettingsError."""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise SettingsError("the keyring needs: pip install 'fubako[keyring]'") from None
    try:
        words = keyring.get_password(_SERVICE, name)
    except KeyringError as error:
        raise SettingsError(f"the keyring does not answer: {error or type(error).__name__}") from None
    if words is None:
        raise SettingsError(f"the keyring has no password of {name}; keyring set {_SERVICE} {name}")
    return words


def into_keyring(name: str, words: str) -> bool:
    """False where this machine has none."""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return False
    try:
        keyring.set_password(_SERVICE, name, words)
    except KeyringError:
        return False
    return True
