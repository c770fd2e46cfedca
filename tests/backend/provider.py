"""An OpenID provider in this process: real metadata, keys, codes, PKCE and signed id tokens."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

URL = "https://provider.example"
CLIENT_ID, CLIENT_SECRET = "attune-client", "attune-secret"


@dataclass
class Provider:
    """The provider; its fields make it misbehave.

    Attributes:
        claims: what its id tokens say instead of the truth.
        away: it does not answer.
    """

    claims: dict[str, Any] = field(default_factory=dict)
    away: bool = False

    def __post_init__(self) -> None:
        self._key = RSAKey.generate_key(2048, {"kid": "k1"})
        self._codes: dict[str, dict[str, Any]] = {}
        app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._metadata),
                Route("/jwks", self._keys),
                Route("/token", self._token, methods=["POST"]),
            ]
        )
        self._inside = httpx2.ASGITransport(app)
        self.transport = httpx2.MockTransport(self._carry)

    def agree(self, location: str, subject: str, name: str) -> str:
        """The person at the provider's page says yes; returns the path they are sent back to."""
        asked = {key: values[0] for key, values in parse_qs(urlsplit(location).query).items()}
        assert location.startswith(f"{URL}/authorize?")
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        assert set(asked["scope"].split()) == {"openid", "profile"}
        code = secrets.token_urlsafe(8)
        self._codes[code] = {**asked, "sub": subject, "preferred_username": name}
        back = urlsplit(asked["redirect_uri"])
        return f"{back.path}?{urlencode({'code': code, 'state': asked['state']})}"

    async def _carry(self, request: httpx2.Request) -> httpx2.Response:
        if self.away:
            raise httpx2.ConnectError("nobody there")
        return await self._inside.handle_async_request(request)

    async def _metadata(self, _request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "issuer": URL,
                "authorization_endpoint": f"{URL}/authorize",
                "token_endpoint": f"{URL}/token",
                "jwks_uri": f"{URL}/jwks",
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def _keys(self, _request: Request) -> JSONResponse:
        return JSONResponse({"keys": [self._key.as_dict(private=False)]})

    async def _token(self, request: Request) -> JSONResponse:
        form = await request.form()
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        granted = self._codes.pop(str(form["code"]), None)
        digest = hashlib.sha256(str(form.get("code_verifier", "")).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            granted is None
            or request.headers.get("authorization") != f"Basic {basic}"
            or challenge != granted["code_challenge"]
            or form["redirect_uri"] != granted["redirect_uri"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": URL,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": granted["nonce"],
            "sub": granted["sub"],
            "preferred_username": granted["preferred_username"],
            **self.claims,
        }
        token = jwt.encode({"alg": "RS256", "kid": "k1"}, claims, self._key)
        return JSONResponse({"access_token": "at", "token_type": "Bearer", "id_token": token})
