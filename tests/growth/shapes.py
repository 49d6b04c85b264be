"""The worst inputs that are known, a row each: whose they are (a target of tests/fuzz/targets.py), and how they look at size n.

To add one: a line in SHAPES, `"name of the target: what it is": lambda n: octets`. Every target needs at least one.
"""

from collections.abc import Callable

HEAD = b"From: a@b.test\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
PLAIN = HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
DEEP = b"".join(
    b"Content-Type: multipart/mixed; boundary=" + b"a" * n + b"\r\n\r\n--" + b"a" * n + b"\r\n" for n in range(1, 50)
)
SMTP = b"\x0fEHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\n"
DKIM = b"DKIM-Signature: v=1; a=rsa-sha256; d=b.test; s=s; h=from; bh=AA==; b=AA==\r\n"
REPORT = b"<feedback>%b</feedback>"


MIXED = HEAD + b"Content-Type: multipart/mixed; boundary="


def multipart(inner: bytes) -> bytes:
    return HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + inner + b"\r\n--b--\r\n"


SHAPES: dict[str, Callable[[int], bytes]] = {
    # messages
    "message: blanks before the end of quoted-printable": lambda n: PLAIN + b" " * n + b"x",
    "message: blanks and carriage returns": lambda n: PLAIN + b" \r" * (n // 2) + b"x",
    "message: soft line ends": lambda n: PLAIN + b"=\r\n" * (n // 3),
    "message: nested multiparts, delimiters that only look so": lambda n: DEEP + (b"--" + b"a" * 60 + b"\r\n") * (n // 62),
    "message: nested multiparts without an end": lambda n: DEEP * (1 + n // 4000),
    "message: messages in messages": lambda n: b"Content-Type: message/rfc822\r\n\r\n" * 50 + b"x\r\n" * (n // 3),
    "message: more messages in messages than are read": lambda n: b"Content-Type: message/rfc822\r\n\r\n" * (n // 32),
    "message: parts": lambda n: HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * (n // 10),
    "message: hyphens": lambda n: multipart(b"--\r\n" * (n // 4)),
    "message: the delimiter with something behind it": lambda n: multipart(b"--bx\r\n" * (n // 6)),
    "message: closed again and again": lambda n: MIXED + b"b\r\n\r\n" + b"--b--\r\n" * (n // 7),
    "message: a long boundary": lambda n: MIXED + b'"' + b"b" * n + b'"\r\n\r\n--' + b"b" * n,
    "message: folds": lambda n: b"Subject: x\r\n" + b" folded\r\n" * (n // 9) + b"\r\nx\r\n",
    "message: folds in a part": lambda n: multipart(b"X: y\r\n" + b" folded\r\n" * (n // 9) + b"\r\nx"),
    "message: fields": lambda n: b"".join(b"X-%d: y\r\n" % i for i in range(n // 10)) + b"\r\nx\r\n",
    "message: one field many times": lambda n: b"Cc: a@b.c\r\n" * (n // 11) + b"\r\nx\r\n",
    "message: parameters": lambda n: HEAD + b"Content-Type: text/plain" + b";\r\n a=b" * (n // 7) + b"\r\n\r\nx",
    "message: semicolons": lambda n: HEAD + b"Content-Type: text/plain" + b";" * n + b"\r\n\r\nx",
    "message: RFC 2231 pieces": lambda n: HEAD + b"Content-Disposition: attachment"
    + b"".join(b"; filename*%d*=%%41" % i for i in range(n // 18)) + b"\r\n\r\nx",
    "message: base64 with foreign signs": lambda n: HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + b"QUJD!" * (n // 5),
    "message: base64 with equals signs": lambda n: HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + b"Q==" * (n // 3),
    "message: a charset of many signs": lambda n: HEAD + b'Content-Type: text/plain; charset="' + b"u" * n + b'"\r\n\r\n\xe9',
    # fields
    "header_values: semicolons": lambda n: b";" * n,
    "header_values: parentheses": lambda n: b"(" * n,
    "header_values: comments": lambda n: b"(a)" * (n // 3),
    "header_values: comments in comments": lambda n: b"(" * (n // 2) + b")" * (n // 2),
    "header_values: quotes": lambda n: b'"' * n,
    "header_values: backslashes": lambda n: b'"' + b"\\" * n,
    "header_values: equals signs": lambda n: b"a;" + b"=" * n,
    "header_values: names without an end": lambda n: b"a/b; " + b"x" * n,
    "header_values: addresses": lambda n: b"a@b.c, " * (n // 7),
    "header_values: words without an address": lambda n: b"a " * (n // 2),
    "header_values: groups": lambda n: b"g:a@b;" * (n // 6),
    "header_values: routes": lambda n: b"<" + b"@a," * (n // 3) + b":b@c>",
    "header_values: angles": lambda n: b"<" * n,
    "header_values: ats": lambda n: b"@" * n,
    "header_values: literals": lambda n: b"[" * n,
    "header_values: blanks": lambda n: b"a" + b" " * n + b"b",
    "header_values: encoded words that begin": lambda n: b"=?utf-8?q?" * (n // 10),
    "header_values: encoded words": lambda n: b"=?utf-8?q?=41?= " * (n // 16),
    "header_values: ends of encoded words": lambda n: b"?= " * (n // 3),
    "header_values: blanks between encoded words": lambda n: b"=?a?q?b?=" + b" " * n + b"x",
    "header_values: quoted-printable": lambda n: b"=" * n,
    "header_values: atoms and dots": lambda n: b"a." * (n // 2) + b"@",
    "forged_results: many fields": lambda n: b"Authentication-Results: x; y=z\r\n" * (n // 33) + b"\r\n",
    "forged_results: comments": lambda n: b"Authentication-Results: " + b"(a) " * (n // 4) + b"\r\n\r\n",
    "forged_results: blanks": lambda n: b"Authentication-Results: " + b" " * n + b"\r\n\r\n",
    "forged_results: names that begin": lambda n: b"x-" * (n // 2) + b"spam: here.test\r\n\r\n",
    "forged_results: words before the name": lambda n: b"Received-SPF: " + b"here.test." * (n // 10) + b"\r\n\r\n",
    "forged_results: open comments": lambda n: b"X-Spam: " + b"(" * n + b"\r\n\r\n",
    "forged_results: sets": lambda n: b"ARC-Authentication-Results: i=1; here.test\r\n" * (n // 44) + b"\r\n",
    "forged_results: tags of a seal": lambda n: b"ARC-Authentication-Results: i=1; here.test\r\nARC-Seal: " + b";i" * (n // 2)
    + b"\r\n\r\n",
    "forged_results: folds": lambda n: b"Authentication-Results: x\r\n" + b" y\r\n" * (n // 4) + b"\r\n",
    "message_on_screen: tags": lambda n: HEAD + b"Content-Type: text/html\r\n\r\n" + b"<b>" * (n // 3),
    "message_on_screen: attachments": lambda n: HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\nContent-Disposition: attachment; filename=x\r\n\r\nx\r\n" * (n // 56),
    "message_answered: quotes": lambda n: HEAD + b"\r\n" + b"> x\r\n" * (n // 5),
    "message_answered: references": lambda n: HEAD + b"References: " + b"<a@b>\r\n " * (n // 8) + b"\r\n\r\nx",
    "html: angles": lambda n: b"<" * n,
    "html: open tags": lambda n: b"<a href=" * (n // 8),
    "html: entities": lambda n: b"&#x41;" * (n // 6),
    "html: comments": lambda n: b"<!--" * (n // 4),
    "html: declarations": lambda n: b"<![" * (n // 3),
    "masquerading: addresses": lambda n: b"a@far.test, " * (n // 12),
    "masquerading: quotes": lambda n: b'"' * n,
    "drafts: fields": lambda n: b"To: a@b.c\n" * (n // 10) + b"\nx\n",
    "drafts: line ends": lambda n: b"\r" * n,
    "batch: dots": lambda n: b".\n" * (n // 2),
    "batch: From lines": lambda n: b"From a\n" * (n // 7),
    "paths: atoms": lambda n: b"<" + b"a." * (n // 2) + b">",
    "paths: quotes": lambda n: b'<"' + b"\\" * n,
    "paths: routes": lambda n: b"<" + b"@a," * (n // 3) + b":b@c>",
    "paths: labels": lambda n: b"a@" + b"b-" * (n // 2),
    "modified_utf7: ampersands": lambda n: b"&" * n,
    "modified_utf7: shifts": lambda n: b"&AEE-" * (n // 5),
    "forwarding_addresses: equals signs": lambda n: b"=" * n,
    "stored_formats: line ends": lambda n: b"\r\n\n\r" * (n // 4),
    # who wrote it
    "signatures: signatures": lambda n: DKIM * (n // len(DKIM)) + b"From: a@b.test\r\n\r\nx\r\n",
    "signatures: blanks and line ends": lambda n: DKIM + b"From: a@b.test\r\n\r\n" + b" \t \r\n" * (n // 5),
    "signatures: empty lines": lambda n: DKIM + b"From: a@b.test\r\n\r\nx" + b"\r\n" * (n // 2),
    "signatures: authors": lambda n: b"From: " + b"a@b.test, " * (n // 10) + b"\r\n\r\nx\r\n",
    "signatures: sets of ARC": lambda n: b"".join(b"ARC-Seal: i=%d; a=b\r\n" % (i % 60) for i in range(n // 22)) + b"\r\n",
    "signature_tags: semicolons": lambda n: b"a=b;" * (n // 4),
    "signature_tags: blanks": lambda n: b"a=" + b" " * n + b"b",
    "records: terms": lambda n: b"a " * (n // 2),
    "records: tags": lambda n: b"a=b; " * (n // 5),
    "records: blanks": lambda n: b" " * n + b"x",
    "spf_evaluation: includes": lambda n: b"include:a.test " * (n // 15),
    "sts_policy: lines": lambda n: b"mx: a.test\r\n" * (n // 12),
    "reports: elements": lambda n: REPORT % (b"<record/>" * (n // 9)),
    "reports: JSON": lambda n: b'{"a":[' + b"1," * (n // 2) + b"1]}",
    "access_table: lines": lambda n: b"a.test REJECT\n" * (n // 14),
    # engines
    "smtp_server: lines": lambda n: b"\x0f" + b"NOOP\r\n" * (n // 6),
    "smtp_server: one line": lambda n: b"\x0f" + b"A" * n,
    "smtp_server: recipients": lambda n: SMTP + b"RCPT TO:<d@e.f>\r\n" * (n // 17),
    "smtp_server: dots": lambda n: SMTP + b"DATA\r\n" + b"..\r\n" * (n // 4),
    "smtp_server: chunks": lambda n: SMTP + b"BDAT 1\r\nx" * (n // 9),
    "lmtp_server: lines": lambda n: b"\x0f" + b"NOOP\r\n" * (n // 6),
    "smtp_client: lines of one reply": lambda n: b"\x0f" + b"220-x\r\n" * (n // 7),
    "imap_server: commands": lambda n: b"\x0f" + b"a NOOP\r\n" * (n // 8),
    "imap_server: parentheses": lambda n: b"\x0fa SEARCH " + b"(" * n,
    "imap_server: keys": lambda n: b"\x0fa SEARCH" + b" NOT SEEN" * (n // 9) + b"\r\n",
    "imap_server: alternatives": lambda n: b"\x0fa SEARCH" + b" OR SEEN" * (n // 8) + b" SEEN\r\n",
    "imap_server: sets": lambda n: b"\x0fa FETCH " + b"1," * (n // 2) + b"1 FLAGS\r\n",
    "imap_server: items": lambda n: b"\x0fa FETCH 1 (" + b"BODY[1]<0.1> " * (n // 13) + b"FLAGS)\r\n",
    "imap_server: literals": lambda n: b"\x0f" + b"a LOGIN {1+}\r\nx {1+}\r\ny\r\n" * (n // 27),
    "imap_server: quotes": lambda n: b'\x0fa LOGIN "' + b"\\\\" * (n // 2) + b'" x\r\n',
    "imap_client: untagged": lambda n: b"\x0f* OK x\r\n" + b"* 1 EXISTS\r\n" * (n // 12),
    "imap_client: parentheses": lambda n: b"\x0f* OK x\r\n* X " + b"()" * (n // 2) + b"\r\n",
    "imap_client: one line": lambda n: b"\x0f* OK x\r\n* X " + b"a" * n,
    "pop3_server: commands": lambda n: b"\x0f" + b"CAPA\r\n" * (n // 6),
    "pop3_client: lines": lambda n: b"\x0f+OK\r\n+OK\r\n" + b"..x\r\n" * (n // 5),
    "managesieve_client: strings": lambda n: b'\x0f"a" ' + b'"x" ' * (n // 4) + b"\r\n",
    "dovecot_clients: fields": lambda n: b"\x0fAUTH" + b"\tx" * (n // 2) + b"\n",
    "milter_packets: packets": lambda n: b"\x00\x00\x00\x01c" * (n // 5),
    "saslauthd_both_sides: strings": lambda n: b"\x00\x01a" * (n // 3),
    "proxy_header: one line": lambda n: b"PROXY " + b"a" * n,
    "smtp_parameters: parameters": lambda n: b"FROM:<a@b.c>" + b" A=B" * (n // 4),
    # who somebody is
    "mechanisms: answers": lambda n: b"n,,\x01auth=Bearer x\x01\x01" * (n // 22),
    "scram_server: attributes": lambda n: b"n,,n=a,r=b" + b",x=y" * (n // 4),
    "digest: directives": lambda n: b"a=b," * (n // 4),
    "digest: backslashes": lambda n: b'a="' + b"\\" * n,
    "kept_hashes: signs": lambda n: b"{SSHA}" + b"A" * n,
    "claims: nesting": lambda n: b"[" * n,
    "public_keys: lines": lambda n: b"ssh-ed25519 AAAA x\n" * (n // 19),
    "user_files: lines": lambda n: b"a:b\n" * (n // 4),
    # what servers and programs say to our client
    "certificates: octets": lambda n: b"0\x82" + b"\x30" * n,
    "autoconfig: elements": lambda n: b"<clientConfig>" + b"<a/>" * (n // 4) + b"</clientConfig>",
    "other_programs: lines": lambda n: b"host a.test\n" * (n // 12),
    "other_programs: blanks": lambda n: b" " * n,
    "other_programs: parentheses": lambda n: b"(" * n,
    "maildrop_lines: references": lambda n: b"References: " + b"<a@b> " * (n // 6) + b"\r\n\r\n",
    "maildrop_lines: a long date": lambda n: b"Date: " + b"1 " * (n // 2) + b"\r\n\r\n",
    "authors: addresses": lambda n: b"From: " + b"a@b.test, " * (n // 10) + b"\r\n\r\nx\r\n",
}  # fmt: skip
