"""What people and programs get when we fail, or when the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import Request
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoneFree
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from backend.auth import Accounts
from backend.web import SESSION_COOKIE, Visitors
from tests.backend.test_web import BROWSER, web, with_gradio


class Failing(Accounts):
    """Fails at the first question about anybody."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def user_for_token(self, token: str) -> None:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT", {}, Exception("connection refused")),
        InterfaceError("SELECT", {}, Exception("connection refused")),
        NoneFree("connection refused"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_absent_database_is_said_plainly(tmp_path: Path, error: Exception) -> None:
    app = web(tmp_path)
    visitors = Visitors(Failing(error))

    @app.get("/direct")
    def direct() -> None:
        raise error

    @app.get("/who")
    async def who(request: Request) -> None:
        await visitors.current_user(request)

    client = TestClient(app, cookies={SESSION_COOKIE: "a-token"})
    for path in ("/direct", "/who"):
        response = client.get(path)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        assert "SELECT" not in response.text
        assert "connection refused" not in response.text


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_fault_of_ours_has_a_page_too(
    tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = web(tmp_path)

    @app.api_route("/fails", methods=[method])
    def fails() -> None:
        raise RuntimeError("a secret")

    page = TestClient(app).request(method, "/fails", headers=BROWSER)
    assert (page.status_code, page.text) == (500, "<h1>500</h1>")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert "RuntimeError: a secret" in caplog.text
    with pytest.raises(RuntimeError):
        TestClient(app).request(method, "/fails")  # a program's: uvicorn's to log and to answer


def test_a_page_that_breaks_off_is_not_dressed_up(tmp_path: Path) -> None:
    app = web(tmp_path)

    def words() -> Iterator[str]:
        yield "begun"
        raise RuntimeError

    @app.get("/breaks")
    def breaks() -> StreamingResponse:
        return StreamingResponse(words())

    with pytest.raises(RuntimeError):
        TestClient(app).get("/breaks", headers=BROWSER)
    page = TestClient(app, raise_server_exceptions=False).get("/breaks", headers=BROWSER)
    assert (page.status_code, page.text) == (200, "begun")


def test_a_fault_before_a_gradio_page_has_a_page_too(tmp_path: Path) -> None:
    app = web(tmp_path)
    asyncio.run(with_gradio(app, Visitors(Failing(RuntimeError("a secret")))))
    cookies = {SESSION_COOKIE: "a-token"}
    with TestClient(app, cookies=cookies, raise_server_exceptions=False) as client:
        for path in ("/", "/lab/"):
            page = client.get(path, headers=BROWSER)
            assert (page.status_code, page.text) == (500, "<h1>500</h1>")
            assert "content-security-policy" in page.headers
