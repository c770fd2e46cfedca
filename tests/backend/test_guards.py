"""Whose word about a visitor's address counts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request

from backend.guards import trusted_proxies
from backend.web import client_address

NEAR = ("127.0.0.1", 5)
PROXY = ("10.20.3.4", 5)  # another machine's, as on huggingface.co


@pytest.mark.parametrize(
    ("embed", "came_from", "forwarded", "seen"),
    [
        (True, PROXY, ["198.51.100.7"], "198.51.100.7"),
        (True, PROXY, ["203.0.113.9, 198.51.100.7", "10.20.9.9"], "198.51.100.7"),
        (True, PROXY, ["203.0.113.9, 2001:db8::7, fd00::1"], "2001:db8::7"),
        (True, NEAR, ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        (True, ("192.0.2.1", 5), ["203.0.113.9"], "192.0.2.1"),
        (False, NEAR, ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        (False, PROXY, ["203.0.113.9"], "10.20.3.4"),
    ],
)
def test_what_visitors_write_into_the_proxys_header_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
    embed: bool,
    came_from: tuple[str, int],
    forwarded: list[str],
    seen: str,
) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    addresses: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        addresses.append(client_address(Request(scope)))

    config = uvicorn.Config(
        app, proxy_headers=True, forwarded_allow_ips=trusted_proxies(embed=embed), log_config=None
    )
    config.load()
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope: Any = {"type": "http", "client": came_from, "headers": headers}

    async def call() -> None:
        await config.loaded_app(scope, None, None)

    asyncio.run(call())
    assert addresses == [seen]
