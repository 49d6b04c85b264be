"""Letters for round trips: every octet must come back."""

import base64
import secrets


def hostile_letter(subject: str = "", to: str = "bob@fubako.test") -> bytes:
    """Dots, From lines, a long line, trailing blanks, UTF-8, ISO-2022-JP, a big base64 part; CRLF line ends."""
    marker = secrets.token_hex(8)
    subject_words = "=?ISO-2022-JP?B?" + base64.b64encode("文箱の手紙".encode("iso2022_jp")).decode() + "?="
    japanese = "会議の資料を送ります。\r\n半角カナは使いません。\r\n".encode("iso2022_jp")
    body = b"\r\n".join(
        [
            b".",
            b"..two dots",
            b".leading dot",
            b"From the beginning of a line",
            b">From quoted",
            b"trailing blanks   ",
            b"tab\t",
            b"x" * 990,
            "UTF-8: 文箱 é ü ß €".encode(),
            b"",
            b"",
            b"end.",
        ]
    )
    attachment = base64.encodebytes(bytes(range(256)) * 200).replace(b"\n", b"\r\n")
    return b"\r\n".join(
        [
            b"From: Alice <alice@fubako.test>",
            b"To: " + to.encode(),
            b"Subject: " + (subject or f"{subject_words} {marker}").encode(),
            b"Message-ID: <" + marker.encode() + b"@letters.test>",
            b"Date: Sun, 22 Nov 2026 12:00:00 +0900",
            b"MIME-Version: 1.0",
            b'Content-Type: multipart/mixed; boundary="=_b_' + marker.encode() + b'"',
            b"",
            b"preamble",
            b"--=_b_" + marker.encode(),
            b"Content-Type: text/plain; charset=ISO-2022-JP",
            b"Content-Transfer-Encoding: 7bit",
            b"",
            japanese,
            b"--=_b_" + marker.encode(),
            b"Content-Type: text/plain; charset=utf-8",
            b"Content-Transfer-Encoding: 8bit",
            b"",
            body,
            b"--=_b_" + marker.encode(),
            b'Content-Type: application/octet-stream; name="data.bin"',
            b"Content-Transfer-Encoding: base64",
            b'Content-Disposition: attachment; filename="data.bin"',
            b"",
            attachment + b"--=_b_" + marker.encode() + b"--",
            b"",
        ]
    )


def marker_of(letter: bytes) -> str:
    return letter.split(b"Message-ID: <", 1)[1].split(b"@", 1)[0].decode()
