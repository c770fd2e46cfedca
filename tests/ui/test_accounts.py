"""The way in and out, driven as a browser without scripts would."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from backend import throttle
from backend.auth import SignUp
from backend.web import SESSION_COOKIE
from tests.backend.people import GOOD
from tests.backend.provider import URL
from tests.conftest import Clock
from tests.ui.visiting import Site, text, who


@pytest.fixture
def site(sqlite_url: str, clock: Clock) -> Iterator[Site]:
    site = Site(sqlite_url, clock)
    yield site
    site.close()


def test_the_sign_in_page_invites_and_loads_nothing_but_our_styles(site: Site) -> None:
    page = site.visitor().get("/login")
    assert "Try it as a guest" in page.text
    assert "Two responses. You choose. It learns your taste." in text(page)
    assert "<script" not in page.text
    assert " style=" not in page.text
    assert page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; style-src 'self';" in policy
    assert f"form-action 'self' {URL}" in policy
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert address.startswith(("/", "data:image/svg+xml,"))
    for sheet in re.findall(r'rel="stylesheet" href="([^"]+)"', page.text):
        assert site.visitor().get(sheet).status_code == 200


def test_who_signs_up_is_signed_in(site: Site) -> None:
    client = site.visitor()
    assert "Make my account" in client.get("/signup?next=/lab/").text
    form = {"username": "mara", "password": GOOD, "next": "/lab/"}
    done = client.post("/signup", data=form)
    assert (done.status_code, done.headers["location"]) == (303, "/lab/")
    for cookie in done.headers.get_list("set-cookie"):
        assert "HttpOnly; SameSite=Lax" in cookie
    assert who(client) is not None
    assert "mara" in text(client.get("/account"))
    for path in ("/login?next=/lab/", "/signup?next=/lab/"):
        assert client.get(path).headers["location"] == "/lab/"


def test_a_refused_form_is_drawn_again_with_the_reason(site: Site) -> None:
    site.member("mara")
    for path, form, status, reason in (
        ("/login", {"username": "mara", "password": "wrong one"}, 400, "do not go together"),
        ("/login", {}, 400, "do not go together"),
        ("/signup", {"username": "Mara", "password": GOOD}, 409, "taken"),
        ("/signup", {"username": "jonas", "password": "short"}, 400, "at least 10"),
        ("/signup", {"username": "guest-1", "password": GOOD}, 400, "for guests"),
    ):
        client = site.visitor()
        page = client.post(path, data={**form, "next": "/lab/"})
        assert page.status_code == status
        assert reason in text(page)
        assert f'value="{form.get("username", "")}"' in page.text
        assert 'value="/lab/"' in page.text
        assert "wrong one" not in page.text
        assert who(client) is None


def test_signing_in_and_out(site: Site) -> None:
    site.member("mara")
    client = site.visitor()
    form = {"username": "mara", "password": GOOD}
    done = client.post("/login", data=form)
    assert (done.status_code, done.headers["location"]) == (303, "/")
    token = client.cookies[SESSION_COOKIE]
    assert who(client) is not None
    out = client.post("/logout")
    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert SESSION_COOKIE not in client.cookies
    client.cookies.set(SESSION_COOKIE, token)  # somebody kept a copy
    assert who(client) is None


def test_get_never_signs_out_or_makes_an_account(site: Site) -> None:
    client = site.member()
    assert client.get("/logout").headers["location"] == "/account"
    assert who(client) is not None
    assert site.visitor().get("/guest").headers["location"] == "/login"
    assert "set-cookie" not in site.visitor().get("/guest").headers


def test_many_wrong_passwords_have_to_wait(site: Site) -> None:
    client = site.visitor()
    form = {"username": "mara", "password": "wrong one"}
    for _ in range(throttle.ACCOUNT_FROM_ADDRESS.free):
        assert client.post("/login", data=form).status_code == 400
    page = client.post("/login", data=form)
    assert page.status_code == 429
    assert int(page.headers["retry-after"]) >= 1
    assert "Too many tries" in text(page)


def test_a_known_browser_is_not_locked_out_by_others(site: Site) -> None:
    own = site.member("mara")
    own.post("/logout")
    stranger = site.visitor()
    for _ in range(throttle.ACCOUNT_FROM_ADDRESS.free + 1):
        refused = stranger.post("/login", data={"username": "mara", "password": "wrong one"})
    assert refused.status_code == 429
    assert own.post("/login", data={"username": "mara", "password": GOOD}).status_code == 303


def test_a_guest_is_in_with_one_click_and_keeps_the_account(site: Site) -> None:
    client = site.visitor()
    done = client.post("/guest", data={"next": "/"})
    assert (done.status_code, done.headers["location"]) == (303, "/")
    user_id, token = who(client), client.cookies[SESSION_COOKIE]
    assert user_id is not None
    client.post("/guest")
    assert who(client) == user_id  # not another one
    assert client.get("/signup").headers["location"] == "/account"
    assert "leaves them behind" in text(client.get("/login"))
    page = client.get("/account")
    assert "Keep this account" in text(page)
    assert "Change the password" not in text(page)
    site.member("mara")
    taken = client.post("/account/claim", data={"username": "mara", "password": GOOD})
    assert taken.status_code == 409
    assert "taken" in text(taken)
    done = client.post("/account/claim", data={"username": "jonas", "password": GOOD})
    assert done.headers["location"] == "/account?done=claimed"
    assert "All your choices came along" in text(client.get("/account?done=claimed"))
    assert client.cookies[SESSION_COOKIE] != token
    assert who(client) == user_id


def test_a_form_from_before_the_guest_came_loses_nothing(site: Site) -> None:
    site.member("mara")
    client = site.visitor()
    client.post("/guest")
    user_id = who(client)
    form = {"username": "mara", "password": GOOD}
    assert "leaves them behind" in text(client.post("/login", data=form))
    assert who(client) == user_id
    assert client.post("/signup", data={**form, "username": "jonas"}).status_code == 303
    assert who(client) == user_id
    other = site.visitor()
    other.post("/guest")
    page = other.get("/login").text
    assert 'name="leaving" value="yes"' in page
    assert other.post("/login", data={**form, "leaving": "yes"}).status_code == 303
    assert "mara" in text(other.get("/account"))


def test_a_guest_is_asked_before_leaving_for_good(site: Site) -> None:
    client = site.visitor()
    client.post("/guest")
    asked = client.post("/logout")
    assert asked.headers["location"] == "/account?leaving=1"
    assert "lose this guest account" in text(client.get("/account?leaving=1"))
    assert who(client) is not None
    assert client.post("/logout", data={"sure": "yes"}).headers["location"] == "/login"
    assert who(client) is None


@pytest.mark.parametrize(
    ("policy", "words"), [("invite", "by invite"), ("closed", "Sign-up is closed")]
)
def test_a_closed_door_says_so(sqlite_url: str, clock: Clock, policy: SignUp, words: str) -> None:
    site = Site(sqlite_url, clock, signup=policy)
    login, signup = site.visitor().get("/login"), site.visitor().get("/signup")
    assert "guest" not in text(login)
    assert "Make an account" not in text(login)
    assert words in text(signup)
    form = {"username": "mara", "password": GOOD}
    assert site.visitor().post("/signup", data=form).status_code == 403
    refused = site.visitor().post("/guest")
    assert refused.status_code == 403
    assert "Guests are not let in" in text(refused)
    site.admin()  # the first admin's link works all the same
    site.close()
