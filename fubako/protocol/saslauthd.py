"""The words of saslauthd's socket (Cyrus SASL): four counted strings (login, password, service, realm; 2 octets of length each, the
high one first), one counted answer that begins with OK or NO. Pure, both sides."""

STRING_OCTETS_MAX = 1024  # of one string; Cyrus takes 256
ANSWER_OCTETS_MAX = 4096


class Malformed(Exception):
    """The bytes are no question, or no answer."""


def question(login: str, password: str, service: str, realm: str) -> bytes:
    """Raises Malformed for what is too long to be asked."""
    out = b""
    for text in (login, password, service, realm):
        octets = text.encode()
        if len(octets) > STRING_OCTETS_MAX:
            raise Malformed("a string is too long")
        out += len(octets).to_bytes(2, "big") + octets
    return out


def parse_question(octets: bytes) -> tuple[str, str, str, str] | None:
    """(login, password, service, realm); None: it has not all come yet. Raises Malformed."""
    found, place = [], 0
    for _ in range(4):
        length = int.from_bytes(octets[place : place + 2], "big")
        if length > STRING_OCTETS_MAX:
            raise Malformed("a string is too long")
        if len(octets) < place + 2 + length:
            return None
        try:
            found.append(octets[place + 2 : place + 2 + length].decode("utf-8"))
        except UnicodeDecodeError:
            raise Malformed("a string is not UTF-8") from None
        place += 2 + length
    if len(octets) > place:
        raise Malformed("there is more than a question")
    return found[0], found[1], found[2], found[3]


def answer(text: str) -> bytes:
    octets = text.encode()[:ANSWER_OCTETS_MAX]
    return len(octets).to_bytes(2, "big") + octets


def parse_answer(octets: bytes) -> str | None:
    """Raises Malformed."""
    length = int.from_bytes(octets[:2], "big")
    if length > ANSWER_OCTETS_MAX:
        raise Malformed("the answer is too long")
    return octets[2 : 2 + length].decode("utf-8", "replace") if len(octets) >= 2 + length else None
