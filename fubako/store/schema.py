"""The rows: tables, their version, and the numbered steps from one version to the next.

Every key of mail begins with `account_id`. No sequence, trigger or foreign key; only SQL that PostgreSQL knows too.
"""

import re
from collections.abc import Callable, Iterable

from fubako.store import faults, typed_targets
from fubako.store.interface import StoreUnavailable, Transaction

VERSION = 5

_STEPS: dict[int, tuple[str | Callable[[Transaction], None], ...]] = {
    1: (
        "CREATE TABLE format (version BIGINT NOT NULL)",
        "CREATE TABLE ids (name TEXT PRIMARY KEY, next BIGINT NOT NULL)",
        "INSERT INTO ids (name, next) VALUES ('account', 1)",
        "CREATE TABLE domain (name TEXT PRIMARY KEY, created BIGINT NOT NULL)",
        """CREATE TABLE account (
            account_id BIGINT PRIMARY KEY, address TEXT NOT NULL UNIQUE, created BIGINT NOT NULL,
            mailbox_next BIGINT NOT NULL, uidvalidity BIGINT NOT NULL, enabled BIGINT NOT NULL DEFAULT 1)""",
        "CREATE TABLE alias (address TEXT PRIMARY KEY, targets TEXT NOT NULL)",
        """CREATE TABLE credential (
            account_id BIGINT NOT NULL, credential_id BIGINT NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL,
            created BIGINT NOT NULL, argon2 TEXT NOT NULL, salt BYTEA NOT NULL, iterations BIGINT NOT NULL,
            stored_key BYTEA NOT NULL, server_key BYTEA NOT NULL, secret TEXT,
            PRIMARY KEY (account_id, credential_id))""",
        """CREATE TABLE mailbox (
            account_id BIGINT NOT NULL, mailbox_id BIGINT NOT NULL, name TEXT NOT NULL,
            uidvalidity BIGINT NOT NULL, uidnext BIGINT NOT NULL, modseq BIGINT NOT NULL, recent BIGINT NOT NULL,
            messages BIGINT NOT NULL, unseen BIGINT NOT NULL, deleted BIGINT NOT NULL, octets BIGINT NOT NULL,
            special_use TEXT NOT NULL, noselect BIGINT NOT NULL, keywords TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (account_id, mailbox_id))""",
        "CREATE UNIQUE INDEX mailbox_name ON mailbox (account_id, name)",
        "CREATE TABLE subscription (account_id BIGINT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (account_id, name))",
        """CREATE TABLE message (
            account_id BIGINT NOT NULL, mailbox_id BIGINT NOT NULL, uid BIGINT NOT NULL, modseq BIGINT NOT NULL,
            flags BIGINT NOT NULL, keywords TEXT NOT NULL, internaldate BIGINT NOT NULL, zone BIGINT NOT NULL,
            savedate BIGINT NOT NULL, size BIGINT NOT NULL, header_size BIGINT NOT NULL, blob_id BIGINT NOT NULL,
            envelope BYTEA NOT NULL, structure BYTEA NOT NULL, trace_id TEXT NOT NULL, journey TEXT NOT NULL,
            PRIMARY KEY (account_id, mailbox_id, uid))""",
        "CREATE INDEX message_modseq ON message (account_id, mailbox_id, modseq)",
        "CREATE INDEX message_trace ON message (trace_id)",
        """CREATE TABLE expunged (
            account_id BIGINT NOT NULL, mailbox_id BIGINT NOT NULL, modseq BIGINT NOT NULL, uid BIGINT NOT NULL,
            PRIMARY KEY (account_id, mailbox_id, modseq, uid))""",
        """CREATE TABLE blob (
            blob_id BIGINT PRIMARY KEY, segment BIGINT NOT NULL, place BIGINT NOT NULL, size BIGINT NOT NULL,
            refs BIGINT NOT NULL)""",
        "CREATE INDEX blob_segment ON blob (segment)",
    ),
    2: (
        """CREATE TABLE lane (
            lane_id BIGINT PRIMARY KEY, owner TEXT NOT NULL, epoch BIGINT NOT NULL, lease_until BIGINT NOT NULL,
            next BIGINT NOT NULL)""",
        "INSERT INTO lane (lane_id, owner, epoch, lease_until, next) VALUES (0,'',0,0,1), (1,'',0,0,1), (2,'',0,0,1), (3,'',0,0,1)",
        """CREATE TABLE queue_letter (
            lane_id BIGINT NOT NULL, queue_id BIGINT NOT NULL, blob_id BIGINT NOT NULL, size BIGINT NOT NULL,
            sender TEXT NOT NULL, body TEXT NOT NULL, smtputf8 BIGINT NOT NULL, require_tls BIGINT NOT NULL,
            ret TEXT NOT NULL, envid TEXT NOT NULL, submitter TEXT NOT NULL, trace_id TEXT NOT NULL, journey TEXT NOT NULL,
            created BIGINT NOT NULL, PRIMARY KEY (lane_id, queue_id))""",
        """CREATE TABLE queue_recipient (
            lane_id BIGINT NOT NULL, queue_id BIGINT NOT NULL, number BIGINT NOT NULL, address TEXT NOT NULL,
            domain TEXT NOT NULL, notify TEXT NOT NULL, orcpt TEXT NOT NULL, held BIGINT NOT NULL DEFAULT 0,
            attempts BIGINT NOT NULL DEFAULT 0, next_attempt BIGINT NOT NULL, warned BIGINT NOT NULL DEFAULT 0,
            code BIGINT NOT NULL DEFAULT 0, enhanced TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
            peer TEXT NOT NULL DEFAULT '', PRIMARY KEY (lane_id, queue_id, number))""",
        "CREATE INDEX queue_due ON queue_recipient (lane_id, held, next_attempt)",
        """CREATE TABLE sent (
            trace_id TEXT NOT NULL, address TEXT NOT NULL, at BIGINT NOT NULL, code BIGINT NOT NULL, enhanced TEXT NOT NULL,
            reason TEXT NOT NULL, journey TEXT NOT NULL, PRIMARY KEY (trace_id, address))""",
        """CREATE TABLE peer (
            host TEXT PRIMARY KEY, level BIGINT NOT NULL, first_seen BIGINT NOT NULL, last_seen BIGINT NOT NULL)""",
    ),
    3: (
        """CREATE TABLE scram_key (
            account_id BIGINT NOT NULL, credential_id BIGINT NOT NULL, hash TEXT NOT NULL, salt BYTEA NOT NULL,
            iterations BIGINT NOT NULL, stored_key BYTEA NOT NULL, server_key BYTEA NOT NULL,
            PRIMARY KEY (account_id, credential_id, hash))""",
        "CREATE TABLE secret (name TEXT PRIMARY KEY, octets BYTEA NOT NULL)",
        """CREATE TABLE dkim_key (
            domain TEXT NOT NULL, selector TEXT NOT NULL, state TEXT NOT NULL, pem TEXT NOT NULL, created BIGINT NOT NULL,
            PRIMARY KEY (domain, selector))""",
        "CREATE TABLE greylist (pair TEXT PRIMARY KEY, first_seen BIGINT NOT NULL, until BIGINT NOT NULL, passed BIGINT NOT NULL)",
        "CREATE TABLE pop_login (client TEXT PRIMARY KEY, address TEXT NOT NULL, until BIGINT NOT NULL)",
        """CREATE TABLE hold_rule (
            field TEXT NOT NULL, value TEXT NOT NULL, reason TEXT NOT NULL, created BIGINT NOT NULL, PRIMARY KEY (field, value))""",
        """CREATE TABLE sts_policy (
            domain TEXT PRIMARY KEY, id TEXT NOT NULL, policy TEXT NOT NULL, fetched BIGINT NOT NULL, expires BIGINT NOT NULL)""",
        """CREATE TABLE tls_result (
            day TEXT NOT NULL, domain TEXT NOT NULL, kind TEXT NOT NULL, policy TEXT NOT NULL, mx TEXT NOT NULL,
            fault TEXT NOT NULL, reason TEXT NOT NULL, sessions BIGINT NOT NULL,
            PRIMARY KEY (day, domain, kind, policy, mx, fault, reason))""",
        """CREATE TABLE dmarc_result (
            day TEXT NOT NULL, domain TEXT NOT NULL, source TEXT NOT NULL, facts TEXT NOT NULL, letters BIGINT NOT NULL,
            PRIMARY KEY (day, domain, source, facts))""",
        "CREATE TABLE report_sent (kind TEXT NOT NULL, day TEXT NOT NULL, domain TEXT NOT NULL, PRIMARY KEY (kind, day, domain))",
        """CREATE TABLE report_received (
            kind TEXT NOT NULL, id TEXT NOT NULL, domain TEXT NOT NULL, received BIGINT NOT NULL, report TEXT NOT NULL,
            PRIMARY KEY (kind, id))""",
        "ALTER TABLE queue_letter ADD COLUMN priority BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE queue_letter ADD COLUMN deliver_by BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE queue_letter ADD COLUMN by_mode TEXT NOT NULL DEFAULT ''",
    ),
    4: (
        "ALTER TABLE credential ADD COLUMN uses TEXT NOT NULL DEFAULT ''",
        """CREATE TABLE ssh_key (
            account_id BIGINT NOT NULL, fingerprint TEXT NOT NULL, authority BIGINT NOT NULL, line TEXT NOT NULL,
            label TEXT NOT NULL, commands TEXT NOT NULL, created BIGINT NOT NULL, PRIMARY KEY (account_id, fingerprint))""",
        """CREATE TABLE client_certificate (
            sha256 TEXT PRIMARY KEY, account_id BIGINT NOT NULL, label TEXT NOT NULL, created BIGINT NOT NULL)""",
        "CREATE INDEX client_certificate_account ON client_certificate (account_id)",
        """CREATE TABLE seen_network (
            account_id BIGINT NOT NULL, network TEXT NOT NULL, last BIGINT NOT NULL, PRIMARY KEY (account_id, network))""",
        """CREATE TABLE totp (
            account_id BIGINT PRIMARY KEY, secret BYTEA NOT NULL, created BIGINT NOT NULL, last_step BIGINT NOT NULL)""",
    ),
    5: (
        # what other servers showed: a row for each level, so that one sighting can be told from two
        """CREATE TABLE peer_level (
            endpoint TEXT NOT NULL, level BIGINT NOT NULL, since BIGINT NOT NULL, last BIGINT NOT NULL,
            PRIMARY KEY (endpoint, level))""",
        "INSERT INTO peer_level (endpoint, level, since, last) SELECT host, 0, first_seen, last_seen FROM peer",
        "INSERT INTO peer_level (endpoint, level, since, last) SELECT host, 1, first_seen, last_seen FROM peer WHERE level>=1",
        "INSERT INTO peer_level (endpoint, level, since, last) SELECT host, 2, first_seen, last_seen FROM peer WHERE level>=2",
        "DROP TABLE peer",
        # what an alias leads to and how a recipient goes on are of a kind, which no text decides
        """CREATE TABLE alias_target (
            address TEXT NOT NULL, number BIGINT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL, run_as TEXT NOT NULL,
            PRIMARY KEY (address, number))""",
        "ALTER TABLE queue_recipient ADD COLUMN way TEXT NOT NULL DEFAULT 'route'",
        "ALTER TABLE queue_recipient ADD COLUMN target TEXT NOT NULL DEFAULT ''",
        typed_targets.convert,
        "DROP TABLE alias",
        # conditions at the account, and a counter that every change of what proves it raises
        "ALTER TABLE account ADD COLUMN changed BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE account ADD COLUMN expires BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE account ADD COLUMN protocols TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE account ADD COLUMN networks TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE totp ADD COLUMN tries TEXT NOT NULL DEFAULT ''",
        # who holds what (`lease`); a beat in place of a time by the wall clock
        "ALTER TABLE lane ADD COLUMN beat BIGINT NOT NULL DEFAULT 0",
        "CREATE TABLE lease (name TEXT PRIMARY KEY, owner TEXT NOT NULL, epoch BIGINT NOT NULL, beat BIGINT NOT NULL)",
        # guesses and unknown recipients, counted for all workers; `until`: milliseconds, before which nothing is looked at
        """CREATE TABLE guess (
            subject TEXT PRIMARY KEY, failures BIGINT NOT NULL, last BIGINT NOT NULL, until BIGINT NOT NULL)""",
        # places of contents stand with those who refer to them; files have owners (`ownership`)
        """CREATE TABLE segment (
            segment BIGINT PRIMARY KEY, state TEXT NOT NULL, owner TEXT NOT NULL, epoch BIGINT NOT NULL, since BIGINT NOT NULL)""",
        """CREATE TABLE moved (
            blob_id BIGINT PRIMARY KEY, segment BIGINT NOT NULL, place BIGINT NOT NULL, at BIGINT NOT NULL)""",
        "INSERT INTO segment (segment, state, owner, epoch, since) SELECT DISTINCT segment, 'sealed', '', 1, 0 FROM blob",
        "INSERT INTO ids (name, next) SELECT 'segment', coalesce(max(segment), 0) + 1 FROM blob",
        "ALTER TABLE message ADD COLUMN segment BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE message ADD COLUMN place BIGINT NOT NULL DEFAULT 0",
        """UPDATE message SET segment=(SELECT segment FROM blob WHERE blob.blob_id=message.blob_id),
            place=(SELECT place FROM blob WHERE blob.blob_id=message.blob_id)
            WHERE EXISTS (SELECT 1 FROM blob WHERE blob.blob_id=message.blob_id)""",
        "CREATE INDEX message_segment ON message (segment, place, blob_id, size)",
        "ALTER TABLE queue_letter ADD COLUMN segment BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE queue_letter ADD COLUMN place BIGINT NOT NULL DEFAULT 0",
        """UPDATE queue_letter SET segment=(SELECT segment FROM blob WHERE blob.blob_id=queue_letter.blob_id),
            place=(SELECT place FROM blob WHERE blob.blob_id=queue_letter.blob_id)
            WHERE EXISTS (SELECT 1 FROM blob WHERE blob.blob_id=queue_letter.blob_id)""",
        "CREATE INDEX queue_segment ON queue_letter (segment, place)",
        "DROP TABLE blob",
    ),
}


def statements(found: int) -> Iterable[str | Callable[[Transaction], None]]:
    """What leads from a format to VERSION, in order."""
    for step in range(found + 1, VERSION + 1):
        yield from _STEPS[step]


def tables() -> set[str]:
    """The names of all tables of VERSION."""
    names: set[str] = set()
    for one in statements(0):
        made = re.match(r"(CREATE|DROP) TABLE (\w+)", one) if isinstance(one, str) else None
        if made is not None:
            (names.add if made[1] == "CREATE" else names.discard)(made[2])
    return names


def version(transaction: Transaction) -> int:
    """Of rows that are there. Raises StoreUnavailable."""
    rows = transaction.rows("SELECT version FROM format")
    if len(rows) != 1:
        raise StoreUnavailable(
            f"the store has {len(rows)} formats instead of one; {faults.MALFORMED.remedy}", faults.MALFORMED
        )
    return int(rows[0][0])


def migrate(transaction: Transaction, table_exists: bool) -> int:
    """Bring the rows to VERSION; returns the version found (0: a new store). Raises StoreUnavailable for one from the future,
    and for one without a version."""
    found = version(transaction) if table_exists else 0
    if found > VERSION:
        raise StoreUnavailable(
            f"the store has format {found}, this program knows up to {VERSION}: a newer Fubako wrote it; {faults.NEWER.remedy}",
            faults.NEWER,
        )
    for statement in statements(found):
        if callable(statement):
            statement(transaction)
        else:
            transaction.run(statement)
    if found < VERSION:
        transaction.run("DELETE FROM format")
        transaction.run("INSERT INTO format (version) VALUES (?)", (VERSION,))
    return found
