"""Sign-in with Hugging Face: OpenID Connect, authorization code with PKCE, state and nonce.

authlib does the protocol. What must survive between leaving and coming back (state, verifier,
nonce, where to go next) is kept in a signed, short-lived cookie of these two routes alone.
Knows no account: it says who came back.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth
from joserfc.errors import JoseError
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response

from backend.errors import NotAllowed, Unavailable
from backend.wording import msg

LOGIN_PATH = "/login/huggingface"
CALLBACK_PATH = "/login/huggingface/callback"
_ERRAND = "errand"
_NO_ANSWER = msg("Hugging Face does not answer. Please try again later.")
_FAILED = msg("Signing in with Hugging Face did not work. Please try again.")
_MINUTES = 15
_TIMEOUT_S = 10.0
_LONGEST_SUBJECT = 64


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who came back from the provider, and what was noted before they left.

    Attributes:
        subject: the account's lasting id (`sub`).
        name: the name it prefers now; may change, may be taken here.
        errand: what `begin` was given.
    """

    subject: str
    name: str
    errand: dict[str, str]


class HuggingFaceLogin:
    """The two steps of signing in at one OpenID provider.

    Args:
        provider_url: the provider's origin; its metadata stand at `/.well-known/…` below.
        secure: our pages are reached by https.
        embed: our pages are shown in a cross-site frame.
        transport: what carries the requests to the provider; None is the network.
    """

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        provider_url: str = "https://huggingface.co",
        secure: bool,
        embed: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        provider_url = provider_url.rstrip("/")
        options: dict[str, Any] = {
            "scope": "openid profile",
            "code_challenge_method": "S256",
            "timeout": _TIMEOUT_S,
        }
        if transport is not None:
            options["transport"] = transport
        self._client_id = client_id
        self._client = OAuth().register(
            name="huggingface",
            client_id=client_id,
            client_secret=client_secret,
            server_metadata_url=f"{provider_url}/.well-known/openid-configuration",
            client_kwargs=options,
        )
        parts = urlsplit(provider_url)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.middleware = Middleware(
            SessionMiddleware,
            secret_key=_signing_key(client_secret),
            session_cookie="attune_oauth",
            max_age=_MINUTES * 60,
            path=LOGIN_PATH,
            same_site="none" if embed else "lax",
            https_only=secure or embed,
            partitioned=embed,
        )

    async def begin(self, request: Request, here: str, errand: dict[str, str]) -> Response:
        """The redirect to the provider.

        Args:
            here: our own origin, as the browser sees it.
            errand: small values to find again in `finish`.

        Raises:
            Unavailable: the provider does not answer.
        """
        request.session[_ERRAND] = errand
        try:
            redirect: Response = await self._client.authorize_redirect(
                request, f"{here.rstrip('/')}{CALLBACK_PATH}"
            )
        except (httpx2.HTTPError, ValueError, RuntimeError) as error:
            raise Unavailable(_NO_ANSWER) from error
        return redirect

    async def finish(self, request: Request) -> Arrival:
        """Who came back.

        Raises:
            NotAllowed: refused there, or the answer does not belong to a sign-in begun here.
            Unavailable: the provider does not answer.
        """
        errand = request.session.pop(_ERRAND, {})
        try:
            metadata = await self._client.load_server_metadata()
            token = await self._client.authorize_access_token(
                request,
                claims_options={
                    "iss": {"essential": True, "values": [metadata.get("issuer")]},
                    "aud": {"essential": True, "value": self._client_id},
                },
            )
        except httpx2.HTTPError as error:
            raise Unavailable(_NO_ANSWER) from error
        except (AuthlibBaseError, JoseError, ValueError, RuntimeError) as error:
            raise NotAllowed(_FAILED) from error
        claims = token.get("userinfo") or {}
        subject = str(claims.get("sub", ""))
        if not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise NotAllowed(msg("Hugging Face did not say who you are. Please try again."))
        return Arrival(subject, str(claims.get("preferred_username", "")), errand)


def _signing_key(client_secret: str) -> str:
    """The same in every process, and not the secret itself."""
    return hmac.new(client_secret.encode(), b"attune oauth cookie", hashlib.sha256).hexdigest()
