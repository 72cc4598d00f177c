"""Logging in by the site's OpenID provider: the node as its client, by Authorization Code with PKCE, state and nonce.

OpenID Connect Core 1.0 (3.1) and Discovery 1.0, RFC 6749, 7636 (PKCE), 7519 (ID token), 9207 (`iss` of the answer).
What the provider answers is bounded (`bounded_http`) and checked: it is trusted to name its users, not to be sane.
"""

import base64
import binascii
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from authlib.common.errors import AuthlibBaseError
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry

from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network.bounded_http import ask
from dicomnode.network.http_server import HttpServer, phrase
from dicomnode.network.openid_provider import OpenIdProvider, is_private

#: Signatures that only the provider can make: none by a secret that we hold too, and not «none».
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
#: Of an answer, bytes; of a token, characters; keys that are looked at.
_MOST_BYTES, _LONGEST_TOKEN, _MOST_KEYS = 256 << 10, 64 << 10, 50
#: Clocks of hospitals differ by so much.
LEEWAY_S: Final = 60
#: What the provider says of itself is asked for again after so long; after a failure; for an unknown key.
_FRESH_S, _AWAY_S, _KEYS_S = 3600.0, 5.0, 30.0
#: So many people may be waiting for the provider at once: a slow one must not hold the console's threads.
_MOST_AT_ONCE = 4
_WELL_KNOWN = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class Begun:
    """One login, as far as it stands with the browser: what has to come back, and what proves that it was ours."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True)
class _Told:
    """What a provider says of itself."""

    authorization: str
    token: str
    userinfo: str
    keys_at: str
    by_post: bool
    names_itself: bool


class OpenIdClient:
    """Talks to one provider. For several threads."""

    def __init__(self, provider: OpenIdProvider, clock: Callable[[], float] = time.time) -> None:
        self._provider, self._clock = provider, clock
        self._server = HttpServer(
            "console.oidc", provider.issuer, ca_file=provider.ca_file, timeout_s=provider.timeout_s
        )
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        self._trusted: tuple[float, ssl.SSLContext] | None = None
        self._told: tuple[float, _Told] | None = None
        self._keys: tuple[float, list[Mapping[str, Any]]] | None = None
        self._away: tuple[float, str] = (0.0, "")

    def login_url(self, begun: Begun) -> str:
        """Return where a browser goes to log in. Raises PeerError: the provider does not say where."""
        provider = self._provider
        return str(
            prepare_grant_uri(
                self._discovered().authorization,
                provider.client_id,
                "code",
                redirect_uri=provider.redirect_uri,
                scope=" ".join(provider.scopes),
                state=begun.state,
                nonce=begun.nonce,
                code_challenge=create_s256_code_challenge(begun.verifier),
                code_challenge_method="S256",
                **({"prompt": "login"} if provider.ask_again else {}),
            )
        )

    def claims(self, code: str, begun: Begun, issuer: str | None, wanted: tuple[str, ...]) -> Mapping[str, Any]:
        """Return what the provider says of the user who comes back with this code.

        Args:
            code: of the answer.
            begun: as the login began.
            issuer: `iss` of the answer.
            wanted: claims for which the provider is asked where the ID token has them not.

        Raises:
            PeerError: it cannot be reached, or does not answer as a provider does.
            PeerRejectedError: it takes the code not, or what it answered is not for us.
        """
        if not self._places.acquire(blocking=False):
            raise PeerError("too many people are logging in at once: try again")
        try:
            told = self._discovered()
            if issuer != self._issuer and (issuer is not None or told.names_itself):
                raise PeerRejectedError("the answer names another issuer")
            answer = self._token(told, code, begun)
            token, access = answer.get("id_token"), answer.get("access_token")
            if not isinstance(token, str):
                raise PeerRejectedError("the answer has no ID token: is «openid» among the scopes?")
            found = self._checked(token, begun.nonce, access if isinstance(access, str) else "")
            if isinstance(access, str) and told.userinfo and any(claim(found, name) is None for name in wanted):
                found = {**self._userinfo(told, access, str(found["sub"])), **found}
            return found
        finally:
            self._places.release()

    def reachable(self) -> None:
        """Ask for what a login needs, without one. Raises PeerError, PeerRejectedError."""
        self._discovered()
        self._fetched_keys()
        if self._provider.secret:
            self._server.secret(self._provider.secret)

    @property
    def _issuer(self) -> str:
        return self._provider.issuer

    def _discovered(self) -> _Told:
        with self._lock:
            now = self._clock()
            if self._told is not None and 0 <= now - self._told[0] < _FRESH_S:
                return self._told[1]
            if 0 <= now - self._away[0] < _AWAY_S:
                raise PeerError(self._away[1])  # those who wait behind a failure shall not each wait for their own
            try:
                found = _told(self._get(self._issuer.rstrip("/") + _WELL_KNOWN), self._issuer)
            except (PeerError, PeerRejectedError) as error:
                self._away = (self._clock(), str(error))
                raise
            self._told = (now, found)
            return found

    def _fetched_keys(self) -> list[Mapping[str, Any]]:
        found = self._get(self._discovered().keys_at).get("keys")
        keys: list[Mapping[str, Any]]
        keys = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        keys = [one for one in keys[:_MOST_KEYS] if one.get("kty") in ("RSA", "EC", "OKP") and one.get("use") != "enc"]
        if not keys:
            raise PeerError("the provider shows no key that signs")
        self._keys = (self._clock(), keys)
        return keys

    def _signing_keys(self, name: str | None) -> Iterator[Mapping[str, Any]]:
        """Yield the keys of this name, or all where none is named; they are fetched again for one that is new."""
        with self._lock:
            held = self._keys
        now = self._clock()
        if held is None or not 0 <= now - held[0] < _FRESH_S:
            keys = self._fetched_keys()
        else:
            keys = held[1]
            if name is not None and all(one.get("kid") != name for one in keys) and now - held[0] > _KEYS_S:
                keys = self._fetched_keys()
        for one in keys:
            if name is None or one.get("kid") in (name, None):
                yield one

    def _checked(self, token: str, nonce: str, access: str) -> dict[str, Any]:
        """Return the claims of an ID token (Core 3.1.3.7). Raises PeerError, PeerRejectedError."""
        if len(token) > _LONGEST_TOKEN:
            raise PeerRejectedError("the ID token is too long")
        header, payload = self._signed(token)
        must = {"iss": {"essential": True, "value": self._issuer}}
        must |= {"aud": {"essential": True, "value": self._provider.client_id}}
        must |= {"exp": {"essential": True}, "iat": {"essential": True}, "nonce": {"essential": True}}
        params = {"client_id": self._provider.client_id, "nonce": nonce, "access_token": access}
        try:
            claims = CodeIDToken(_object(payload), header, must, params)
            claims.validate(now=int(self._clock()), leeway=LEEWAY_S)
        except (JoseError, AuthlibBaseError) as error:
            what = getattr(error, "claim", None) or error.error
            raise PeerRejectedError(f"the ID token is not for this login ({_word(what)})") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise PeerRejectedError("the ID token cannot be read") from None
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise PeerRejectedError("the ID token names nobody")
        return dict(claims)

    def _signed(self, token: str) -> tuple[dict[str, Any], bytes]:
        """Return header and payload of what the provider has signed. Raises PeerError, PeerRejectedError."""
        try:
            header = _object(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
        except (ValueError, binascii.Error):
            raise PeerRejectedError("the ID token cannot be read") from None
        name = header.get("kid")
        if header.get("alg") not in ALGORITHMS or not (name is None or isinstance(name, str)):
            raise PeerRejectedError("the ID token is not signed as the provider has to sign it")
        for one in self._signing_keys(name):
            try:
                found = jws.deserialize_compact(token, JWKRegistry.import_key(dict(one)), algorithms=[header["alg"]])
            except (JoseError, AuthlibBaseError, ValueError, TypeError, KeyError, AttributeError):
                continue  # not by this one
            return dict(found.headers()), found.payload
        raise PeerRejectedError("the ID token is signed by nobody whom the provider names")

    def _token(self, told: _Told, code: str, begun: Begun) -> dict[str, Any]:
        provider = self._provider
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": provider.redirect_uri}
        form |= {"code_verifier": begun.verifier}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        secret = self._server.secret(provider.secret) if provider.secret else ""
        if secret and not told.by_post:
            # RFC 6749, 2.3.1: both are encoded as in a form.
            pair = f"{quote(provider.client_id, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
        else:
            form |= {"client_id": provider.client_id, **({"client_secret": secret} if secret else {})}
        return self._asked("POST", told.token, headers, urlencode(form).encode("ascii"))

    def _userinfo(self, told: _Told, access: str, subject: str) -> dict[str, Any]:
        if not access.isascii() or not access.isprintable():
            raise PeerRejectedError("the access token is none")
        found = self._get(told.userinfo, {"Authorization": f"Bearer {access}"})
        if found.get("sub") != subject:
            raise PeerRejectedError("what the provider says of the user is of another one")  # Core 5.3.2
        return found

    def _get(self, url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._asked("GET", url, headers or {}, b"")

    def _asked(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
        """Return the JSON object that is the answer. Raises PeerError; PeerRejectedError for 4xx."""
        server, who = self._server, f"the provider {self._issuer}"
        asked = {"Accept": "application/json", **headers}
        now = self._clock()
        if self._trusted is None or not 0 <= now - self._trusted[0] < _FRESH_S:
            self._trusted = (now, server.trusted())
        with server.client(self._trusted[1]) as client:
            answer = ask(
                client, method, url, who, server.timeout_s, most_bytes=_MOST_BYTES, headers=asked, content=content
            )
        if answer.is_success:
            try:
                return _object(answer.content)
            except ValueError:
                raise PeerError(f"{who} answered something else than a JSON object") from None
        told = f"{who} answered {answer.status} {phrase(answer.status)}"
        if 400 <= answer.status < 500:
            raise PeerRejectedError(f"{told}: {_why(answer.content)}")
        raise PeerError(told)


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or by the path to it («realm_access.roles»); None where there is none."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _told(given: Mapping[str, Any], issuer: str) -> _Told:
    """Return what a provider says of itself (Discovery 3). Raises PeerError."""
    if given.get("issuer") != issuer:
        raise PeerError(f"the provider at {issuer} calls itself otherwise: console.oidc.issuer has to be its own word")

    def url(name: str, *, needed: bool = True) -> str:
        found = given.get(name, "")
        if found == "" and not needed:
            return ""
        if not isinstance(found, str) or not found.isprintable() or not is_private(found):
            raise PeerError(f"the provider {issuer} names no {name} that begins with https://")
        return found

    methods = given.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    methods = methods if isinstance(methods, list) else []
    return _Told(
        url("authorization_endpoint"),
        url("token_endpoint"),
        url("userinfo_endpoint", needed=False),
        url("jwks_uri"),
        by_post="client_secret_basic" not in methods and "client_secret_post" in methods,
        names_itself=given.get("authorization_response_iss_parameter_supported") is True,
    )


def _object(content: bytes) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError: it is none."""
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004
    return found


def _why(content: bytes) -> str:
    """Return the code of an error (RFC 6749, 5.2)."""
    try:
        return _word(_object(content).get("error"))
    except ValueError:
        return "no reason given"


def _word(given: object) -> str:
    """Return a code of an error as it may be shown: it is the provider's."""
    text = str(given)
    return text if text.isascii() and text.replace("_", "").isalnum() and len(text) <= 40 else "an unknown reason"
