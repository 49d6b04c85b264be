"""What to type into other programs to use this server: ready to copy."""

from typing import Any


def recipes(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """(program, text) for mutt, fetchmail, msmtp, swaks, curl and Thunderbird."""
    services, ca = facts["services"], facts["ca_file"]
    alice, bob = facts["accounts"][0], facts["accounts"][1]
    a, ap = alice["address"], alice["password"]
    b, bp = bob["address"], bob["password"]
    smtps, sub = services["submissions"]["port"], services["submission"]["port"]
    imaps, pops = services["imaps"]["port"], services["pop3s"]["port"]
    ssh = services.get("ssh")
    door = [
        (
            "OpenSSH",
            (
                f"fubako user key add {b} ~/.ssh/id_ed25519.pub --config {facts['config_file']}"
                f"\n    ssh -p {ssh['port']} -l {b} localhost help"
                f"\n    (the first connection shows {ssh['fingerprint']})"
            ),
        )
    ] if ssh else []  # fmt: skip
    quoted = b.replace("@", "%40")
    return [
        (
            "mutt",
            (
                f"mutt -n -F /dev/null -e 'set certificate_file={ca} imap_user={b} imap_pass={bp} from={b}"
                f" folder=imaps://localhost:{imaps}/ smtp_url=smtps://{quoted}@localhost:{smtps} smtp_pass={bp}"
                f" smtp_authenticators=scram-sha-256' -f imaps://localhost:{imaps}/INBOX"
            ),
        ),
        (
            "fetchmail",
            (
                f'echo \'poll localhost protocol pop3 service {pops} user "{b}" password "{bp}" ssl sslcertck'
                f' sslcertfile "{ca}" keep mda "cat >> letters.mbox"\' > fetchmailrc && chmod 600 fetchmailrc'
                " && fetchmail -f fetchmailrc"
            ),
        ),
        (
            "msmtp",
            (
                f"msmtp --host=localhost --port={smtps} --tls=on --tls-starttls=off --tls-trust-file={ca} --auth=scram-sha-256"
                f" --user={a} --passwordeval='echo {ap}' --from={a} {b} < letter.txt"
            ),
        ),
        (
            "swaks",
            (
                f"swaks --server localhost:{sub} -tls --tls-verify --tls-ca-path {ca} --auth PLAIN --auth-user {a}"
                f" --auth-password {ap} --from {a} --to {b}"
            ),
        ),
        ("curl", f"curl --cacert {ca} -u '{b}:{bp}' 'imaps://localhost:{imaps}/INBOX;MAILINDEX=*'"),
        (
            "Thunderbird",
            (
                f"import {ca} under Settings > Privacy & Security > Certificates > Authorities; then an account with"
                f"\n  incoming IMAP localhost {imaps} SSL/TLS, normal password, user {b}, password {bp}"
                f"\n  outgoing SMTP localhost {smtps} SSL/TLS, normal password, user {a}, password {ap}"
                f"\n  (address {b}; {quoted} where a URL is asked for)"
            ),
        ),
        *door,
    ]
