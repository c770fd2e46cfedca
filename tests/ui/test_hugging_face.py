"""Signing in with Hugging Face, against a provider in this process."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from backend.web import SESSION_COOKIE, create_web
from tests.conftest import Clock
from tests.ui.visiting import ASSETS, Site, text, who
from ui.language import Languages
from ui.server_pages import ErrorPage


@pytest.fixture
def site(sqlite_url: str, clock: Clock) -> Iterator[Site]:
    site = Site(sqlite_url, clock)
    yield site
    site.close()


def arrive(site: Site, client: TestClient, start: str = "/login/huggingface", **person: str) -> Any:
    """Through the provider's door and back."""
    away = client.get(start)
    assert away.status_code == 302
    subject, name = person.get("subject", "sub-1"), person.get("name", "mara")
    return client.get(site.provider.agree(away.headers["location"], subject, name))


def test_hugging_face_signs_in_and_finds_the_account_again(site: Site) -> None:
    client = site.visitor()
    assert "/login/huggingface?next=/lab/" in client.get("/login?next=/lab/").text
    done = arrive(site, client, "/login/huggingface?next=/lab/")
    assert (done.status_code, done.headers["location"]) == (303, "/lab/")
    user_id = who(client)
    assert user_id is not None
    assert "Set a password" in text(client.get("/account"))
    again = site.visitor()
    arrive(site, again, name="renamed")
    assert who(again) == user_id


def test_a_guest_who_comes_by_hugging_face_keeps_the_account(site: Site) -> None:
    client = site.visitor()
    client.post("/guest")
    user_id, token = who(client), client.cookies[SESSION_COOKIE]
    arrive(site, client)
    assert who(client) == user_id
    assert client.cookies[SESSION_COOKIE] != token


def test_an_invite_can_be_taken_by_hugging_face(site: Site) -> None:
    admin = site.admin()
    tokens = [site.administration.invite(int(str(who(admin))), "researcher") for _ in range(2)]
    client = site.visitor()
    start = re.search(r'href="(/login/huggingface[^"]+)"', client.get(f"/invite/{tokens[0]}").text)
    assert start is not None
    assert arrive(site, client, unescape(start[1])).headers["location"] == "/"
    assert "Researcher" in text(client.get("/account"))
    known = site.visitor()  # an account that exists already is asked first
    done = arrive(site, known, f"/login/huggingface?invite={tokens[1]}")
    assert done.headers["location"] == f"/invite/{tokens[1]}"


def test_hugging_face_never_leads_to_another_site(site: Site) -> None:
    done = arrive(site, site.visitor(), "/login/huggingface?next=//evil.example")
    assert done.headers["location"] == "/"


def _denied(_site: Site, client: TestClient) -> Any:
    client.get("/login/huggingface")
    return client.get("/login/huggingface/callback?error=access_denied")


def _unasked(site: Site, client: TestClient) -> Any:
    location = site.visitor().get("/login/huggingface").headers["location"]
    return client.get(site.provider.agree(location, "sub-1", "mara"))  # another browser's errand


def _replayed(site: Site, client: TestClient) -> Any:
    location = client.get("/login/huggingface").headers["location"]
    back = site.provider.agree(location, "sub-1", "mara")
    client.get(back)
    client.post("/logout")
    return client.get(back)


def _lying(**claims: Any) -> Callable[[Site, TestClient], Any]:
    def lie(site: Site, client: TestClient) -> Any:
        site.provider.claims = claims
        return arrive(site, client)

    return lie


@pytest.mark.parametrize(
    "attempt",
    [
        _denied,
        _unasked,
        _replayed,
        _lying(nonce="another"),
        _lying(aud="another-client"),
        _lying(iss="https://evil.example"),
        _lying(exp=1),
        _lying(sub=""),
        _lying(sub="x" * 65),
        _lying(sub="a\x00b"),
    ],
)
def test_what_does_not_belong_to_a_sign_in_begun_here_is_refused(
    site: Site, attempt: Callable[[Site, TestClient], Any]
) -> None:
    client = site.visitor()
    page = attempt(site, client)
    assert page.status_code == 403
    assert "Please try again" in text(page)
    assert who(client) is None


def test_an_absent_provider_is_said_plainly(site: Site) -> None:
    site.provider.away = True
    page = site.visitor().get("/login/huggingface")
    assert page.status_code == 503
    assert "does not answer" in text(page)


def test_without_a_client_there_is_no_such_door(site: Site) -> None:
    app = create_web(assets=ASSETS, error_page=ErrorPage(Languages()))
    site.add_pages(app)
    client = TestClient(app, headers={"Accept": "text/html"})
    assert "Hugging Face" not in client.get("/login").text
    assert client.get("/login/huggingface").status_code == 404
