"""Bearer tokens of OAuth: whose is one? What all judges share, and the one that asks the issuer (RFC 7662)."""

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from fubako.net.interface import Https, HttpsFailure
from fubako.protocol.sasl.oauth import Token
from fubako.telemetry import Telemetry

ANSWER_OCTETS_MAX = 256 * 1024
TOKEN_OCTETS_MAX = 16 * 1024
LEEWAY_SECONDS = 60
ANSWERED_SECONDS = 30.0  # so long an answer about a token is not asked for again
ANSWERED_MAX = 10_000
ASKING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class OAuthRules:
    """What a token must say. `keys`: a file or an https URL; `introspection`: where tokens are asked about instead."""

    issuer: str = ""
    audience: str = ""
    keys: str = ""
    algorithms: tuple[str, ...] = ()
    introspection: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    user_claim: str = "email"
    scope: str = ""
    discovery: str = ""


class Refused(Exception):
    """The token does not hold; the reason is for the administrator."""


def _names(value: object) -> list[str]:
    """A claim that is a text of words, or a list."""
    if isinstance(value, str):
        return value.split()
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """Seconds since the epoch; raises Refused for what is no number."""
    at = claims.get(name)
    if at is not None and (isinstance(at, bool) or not isinstance(at, int | float)):
        raise Refused(f"its {name} is no time")
    return at


def claimed(claims: Mapping[str, Any], rules: OAuthRules, now: float) -> str:
    """Whose a token is, by what it says of itself; raises Refused."""
    ends, begins = _moment(claims, "exp"), _moment(claims, "nbf")
    if (ends is not None and now >= ends + LEEWAY_SECONDS) or (begins is not None and now < begins - LEEWAY_SECONDS):
        raise Refused("it is not valid now")
    if rules.issuer and claims.get("iss") != rules.issuer:
        raise Refused("another one issued it")
    audience = claims.get("aud")
    if rules.audience and rules.audience not in (audience if isinstance(audience, list) else [audience]):
        raise Refused("it is for another service")
    if rules.scope and rules.scope not in _names(claims.get("scope", claims.get("scp"))):
        raise Refused(f"it has no scope {rules.scope}")
    user = claims.get(rules.user_claim)
    if not isinstance(user, str) or "@" not in user:
        raise Refused(f"it has no mail address in {rules.user_claim}")
    verified = claims.get("email_verified")
    if rules.user_claim == "email" and verified is not True and verified != "true":
        raise Refused("its mail address was not verified")
    return user.lower()


class Judge:
    def __init__(self, rules: OAuthRules, https: Https, now: Callable[[], float], telemetry: Telemetry) -> None:
        self.rules, self._https, self._now, self._telemetry = rules, https, now, telemetry

    async def judge(self, token: str) -> Token:
        rules = self.rules
        try:
            if not 0 < len(token) <= TOKEN_OCTETS_MAX:
                raise Refused("it is too long, or there is none")
            async with asyncio.timeout(ASKING_SECONDS):
                return Token(await self._user(token))
        except Refused as reason:
            self._telemetry.event("token.refused", reason=str(reason))
            return Token("", "invalid_token", rules.scope, rules.discovery)
        except (HttpsFailure, OSError, TimeoutError) as error:
            self._telemetry.event("backend.down", backend="oauth", reason=str(error) or "no answer in time")
            return Token(temporary=True)

    async def _user(self, token: str) -> str:
        raise NotImplementedError  # each way of asking has its own

    async def fetched(self, url: str, form: Mapping[str, str] | None = None) -> Any:
        """JSON from an https URL. Raises HttpsFailure."""
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        if form is None:
            answer = await self._https.get(parts.netloc, path or "/", ANSWER_OCTETS_MAX)
        else:
            content = urlencode(form).encode()
            answer = await self._https.post(parts.netloc, path or "/", "application/x-www-form-urlencoded", content)
        if answer.status != 200:
            raise HttpsFailure(f"{parts.netloc} answered {answer.status}")
        try:
            return json.loads(answer.content)
        except (ValueError, RecursionError):
            raise HttpsFailure(f"{parts.netloc} did not answer with JSON") from None


class AskedTokens(Judge):
    """Tokens of any kind, asked about at their issuer's; an answer is remembered for a moment, under a hash of the token."""

    def __init__(self, rules: OAuthRules, https: Https, now: Callable[[], float], telemetry: Telemetry) -> None:
        super().__init__(rules, https, now, telemetry)
        self._answers: OrderedDict[bytes, tuple[float, dict[str, Any]]] = OrderedDict()

    async def _user(self, token: str) -> str:
        mark, now = hashlib.sha256(token.encode()).digest(), self._now()
        until, said = self._answers.get(mark, (0.0, {}))
        if now >= until:
            form = {"token": token, "token_type_hint": "access_token"}
            if self.rules.client_id:
                form |= {"client_id": self.rules.client_id, "client_secret": self.rules.client_secret}
            said = await self.fetched(self.rules.introspection, form)
            if not isinstance(said, dict):
                raise HttpsFailure("the answer about a token is no object")
            self._answers[mark] = (now + ANSWERED_SECONDS, said)
            self._answers.move_to_end(mark)
            if len(self._answers) > ANSWERED_MAX:
                self._answers.popitem(last=False)
        if said.get("active") is not True:
            raise Refused("its issuer says that it is not active")
        return claimed(said, self.rules, now)
