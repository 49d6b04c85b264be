"""Bearer tokens that prove themselves: JWTs by their issuer's signature (RFC 7519, RFC 8725, RFC 9068). joserfc reads them."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from fubako.accounts.tokens import Judge, OAuthRules, Refused, claimed
from fubako.net.interface import Https, HttpsFailure
from fubako.telemetry import Telemetry

KEYS_SECONDS = 3600.0  # after which an issuer's keys are fetched again
KEPT_SECONDS = 24 * 3600.0  # so long keys are good whose issuer cannot be reached
UNKNOWN_KEY_SECONDS = 30.0  # a token with a key that we do not know has them fetched no more often than this


class SignedTokens(Judge):
    """JWTs. Keys are fetched when they are first needed, every hour, and when a token names one that is not known."""

    def __init__(self, rules: OAuthRules, https: Https, now: Callable[[], float], telemetry: Telemetry) -> None:
        super().__init__(rules, https, now, telemetry)
        self._keys: Any = None
        self._read = 0.0
        self._tried = float("-inf")
        self._away: HttpsFailure | OSError | None = None  # why the keys could not be read the last time
        self._turn: asyncio.Lock | None = None

    async def _user(self, token: str) -> str:
        if token.count(".") != 2:
            raise Refused("it is no JWT")
        try:
            kid = jws.extract_compact(token.encode()).headers().get("kid")
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Refused(f"it is no JWT ({type(error).__name__})") from None
        keys = await self._known(kid if isinstance(kid, str) else "")
        decoded = self._decoded(token, [keys] if isinstance(kid, str) and kid else keys.keys)
        if "exp" not in decoded.claims:
            raise Refused("it never ends")
        return claimed(decoded.claims, self.rules, self._now())

    def _decoded(self, token: str, keys: Sequence[Any]) -> Any:
        """By the key that it names, or by the first that fits where it names none. Raises Refused."""
        reason = "nobody's key"
        for key in keys:
            try:
                return jwt.decode(token, key, algorithms=list(self.rules.algorithms))
            except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                reason = type(error).__name__
        raise Refused(f"its signature does not hold ({reason})")

    async def _known(self, kid: str) -> Any:
        """Raises HttpsFailure, OSError."""
        self._turn = self._turn or asyncio.Lock()
        async with self._turn:
            age = self._now() - self._read
            known = self._holds(kid)
            tried = self._now() - self._tried
            if self._keys is None or (tried > UNKNOWN_KEY_SECONDS and (age > KEYS_SECONDS or not known)):
                await self._read_anew(age)
            if self._away is not None and not self._holds(kid):
                raise self._away
            return self._keys

    def _holds(self, kid: str) -> bool:
        return self._keys is not None and (not kid or any(key.kid == kid for key in self._keys.keys))

    async def _read_anew(self, age: float) -> None:
        """Keys that were known are good for a while longer when their issuer cannot be reached. Raises HttpsFailure, OSError."""
        self._tried = self._now()
        try:
            self._keys = await self._load()
            self._read, self._away = self._now(), None
        except (HttpsFailure, OSError) as error:
            if self._keys is None or age > KEPT_SECONDS:
                raise
            self._away = error
            self._telemetry.event("backend.down", backend="oauth", reason=str(error) or type(error).__name__)

    async def _load(self) -> Any:
        try:
            if self.rules.keys.startswith("https://"):
                found = await self.fetched(self.rules.keys)
            else:
                found = json.loads(await asyncio.to_thread(Path(self.rules.keys).read_bytes))
            public = [one for one in found["keys"] if one.get("kty") != "oct" and one.get("use", "sig") == "sig"]
            return KeySet.import_key_set({"keys": public})
        except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise OSError(f"{self.rules.keys} holds no set of keys ({type(error).__name__})") from None
