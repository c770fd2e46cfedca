"""The account pages when somebody means harm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.web import SESSION_COOKIE
from tests.backend.people import GOOD
from tests.conftest import Clock
from tests.ui.visiting import Site, text, who


@pytest.fixture
def site(sqlite_url: str, clock: Clock) -> Iterator[Site]:
    site = Site(sqlite_url, clock)
    yield site
    site.close()


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/\tevil",
        "/\r\nSet-Cookie: a=b",
        "evil.example",
        "http:evil.example",
        "/é",
        "",
    ],
)
def test_next_never_leads_to_another_site(site: Site, target: str) -> None:
    site.member("mara")
    form = {"username": "mara", "password": GOOD, "next": target}
    assert site.visitor().post("/login", data=form).headers["location"] == "/"
    assert site.visitor().post("/guest", data={"next": target}).headers["location"] == "/"
    signed_in = site.member("jonas").get("/login", params={"next": target})
    assert signed_in.headers["location"] == "/"


def test_what_visitors_send_is_shown_as_text(site: Site) -> None:
    admin = site.admin()
    hostile = '"><img src=x onerror=alert(1)><script>alert(1)</script>'
    pages = [
        site.visitor().post("/login", data={"username": hostile, "password": "x", "next": hostile}),
        site.visitor().post("/signup", data={"username": hostile, "password": GOOD}),
        site.visitor().get("/login", params={"next": f"/{hostile}"}),
        site.visitor().get(f"/invite/{hostile}"),
        site.visitor().get(f"/{hostile}"),
        admin.get("/account", params={"q": hostile, "done": hostile, "leaving": hostile}),
        admin.post("/account/users", data={"id": hostile, "role": hostile}),
        admin.post("/account/invites", data={"role": hostile}),
    ]
    for page in pages:
        assert "<script" not in page.text
        assert "<img" not in page.text


def test_posts_from_another_site_are_refused(site: Site) -> None:
    client = site.member("mara")
    evil = {"Origin": "https://evil.example"}
    form = {"username": "mara", "password": GOOD}
    for path in ("/login", "/signup", "/guest", "/logout", "/account/password", "/invite/x"):
        assert client.post(path, data=form, headers=evil).status_code == 403
    assert who(client) is not None


def test_a_planted_session_is_worth_nothing(site: Site) -> None:
    site.member("mara")
    client = site.visitor()
    client.cookies.set(SESSION_COOKIE, "planted", domain="testserver.local", path="/")
    assert who(client) is None
    client.post("/login", data={"username": "mara", "password": GOOD})
    assert client.cookies[SESSION_COOKIE] != "planted"
    attacker = site.visitor()
    attacker.cookies.set(SESSION_COOKIE, "planted")
    assert who(attacker) is None


def test_signing_in_ends_the_session_before_it(site: Site) -> None:
    site.member("mara")
    attacker, victim = site.visitor(), site.visitor()
    attacker.post("/guest")
    planted = attacker.cookies[SESSION_COOKIE]
    victim.cookies.set(SESSION_COOKIE, planted, domain="testserver.local", path="/")
    form = {"username": "mara", "password": GOOD}
    assert "leaves them behind" in text(victim.post("/login", data=form))
    victim.post("/login", data={**form, "leaving": "yes"})
    assert victim.cookies[SESSION_COOKIE] != planted
    assert who(victim) is not None
    assert who(attacker) is None


def test_forms_with_files_or_floods_of_fields_are_refused(site: Site) -> None:
    client = site.visitor()
    assert client.post("/login", files={"username": b"x" * 10}).status_code == 400
    flood = {f"field{n}": "x" for n in range(50)}
    assert client.post("/login", data=flood).status_code == 400
