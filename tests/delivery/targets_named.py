"""Aliases as an administrator writes them, for a test's own transaction."""

from collections.abc import Sequence

from fubako.accounts import aliases, directory
from fubako.store.interface import Transaction


def add_alias(tx: Transaction, address: str, targets: Sequence[str]) -> None:
    directory.add_alias(tx, address, [aliases.parse_target(one) for one in targets])
