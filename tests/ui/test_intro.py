"""The introduction and the study's text: who meets them, when, and what of it is stored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.backend.people import GOOD
from tests.conftest import Clock
from tests.ui.visiting import Site, text, who

TEXT = "We keep your choices.\n\nYou may <b>stop</b> at any time."


@pytest.fixture
def make_site(sqlite_url: str, clock: Clock) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(**options: object) -> Site:
        made.append(Site(sqlite_url, clock, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for site in made:
        site.close()


def test_a_new_person_is_shown_around_once(make_site: Callable[..., Site]) -> None:
    client = make_site(introduction=True).visitor()
    form = {"username": "mara", "password": GOOD, "next": "/lab/"}
    assert client.post("/signup", data=form).headers["location"] == "/welcome?next=%2Flab%2F"
    first = client.get("/welcome?next=/lab/")
    assert "Step 1 of 3" in text(first)
    assert "step=2&amp;next=/lab/" in first.text
    last = client.get("/welcome?step=3&next=/lab/")
    assert "Begin" in text(last)
    assert client.post("/welcome", data={"next": "/lab/"}).headers["location"] == "/lab/"
    client.post("/logout")
    again = client.post("/login", data={"username": "mara", "password": GOOD})
    assert again.headers["location"] == "/"
    assert "Close" in text(client.get("/welcome"))  # it can be seen again


def test_the_way_in_is_straight_where_nothing_is_offered(make_site: Callable[..., Site]) -> None:
    client = make_site().visitor()
    form = {"username": "mara", "password": GOOD}
    assert client.post("/signup", data=form).headers["location"] == "/"


def test_guests_came_to_try_and_see_it_when_they_ask(make_site: Callable[..., Site]) -> None:
    guest = make_site(introduction=True).visitor()
    assert guest.post("/guest").headers["location"] == "/"
    assert "Step 1 of 3" in text(guest.get("/welcome"))


def test_the_example_answers_and_is_not_stored(make_site: Callable[..., Site]) -> None:
    client = make_site(introduction=True).member("mara")
    page = client.get("/welcome?step=2")
    links = re.findall(r'href="(/welcome\?[^"]*answer=\w+)"', page.text)
    assert len(links) == 4
    answered = client.get(links[0].replace("&amp;", "&"))
    assert "You prefer A" in text(answered)
    assert answered.headers.get("set-cookie") is None
    for odd in ("step=0", "step=x", "step=99", "step=2&answer=withdrawn", "next=//evil.example"):
        shown = client.get(f"/welcome?{odd}")
        assert shown.status_code == 200
        assert "evil" not in shown.text
    assert client.post("/welcome", data={"next": "//evil.example"}).headers["location"] == "/"


def test_strangers_sign_in_first(make_site: Callable[..., Site]) -> None:
    stranger = make_site(consent_text=TEXT).visitor()
    for answer in (stranger.get("/welcome"), stranger.post("/welcome/consent")):
        assert answer.headers["location"] == "/login?next=/welcome"
    assert stranger.get("/welcome/consent").headers["location"] == "/welcome"


def test_nobody_takes_part_without_agreeing(make_site: Callable[..., Site]) -> None:
    site = make_site(introduction=True, consent_text=TEXT)
    for client in (site.member("mara"), site.visitor()):
        client.post("/guest")
        assert client.get("/").headers["location"] == "/welcome?next=/"
        assert client.get("/", headers={"Accept": "application/json"}).status_code == 403
        page = client.get("/welcome")
        assert "We keep your choices." in text(page)
        assert "<b>stop" not in page.text
        refused = client.post("/welcome/consent", data={"next": "/"})
        assert refused.status_code == 400
        assert "tick the box" in text(refused)
        assert client.get("/").status_code == 303
        assert client.get("/taste/data.jsonl").status_code == 200  # one's data stays one's own
    shown = re.search(r'name="text" value="(\w+)"', page.text)
    assert shown is not None
    agree = {"agree": "yes", "next": "/taste/", "text": shown[1]}
    member = site.visitor()
    member.post("/login", data={"username": "mara", "password": GOOD})
    stale = member.post("/welcome/consent", data={**agree, "text": "of another text"})
    assert stale.status_code == 409
    assert "changed while you read it" in text(stale)
    assert member.get("/").headers["location"] == "/welcome?next=/"
    agreed = member.post("/welcome/consent", data=agree)
    assert agreed.headers["location"] == "/welcome?next=%2Ftaste%2F"
    assert "Step 1 of 3" in text(member.get("/welcome"))
    assert who(member) is not None
    guest = site.visitor()
    guest.post("/guest")
    assert guest.post("/welcome/consent", data=agree).headers["location"] == "/taste/"
    assert who(guest) is not None


def test_the_guide_leads_back_to_it(make_site: Callable[..., Site]) -> None:
    site = make_site()
    page = site.visitor().get("/guide")
    assert 'href="/welcome"' in page.text
    assert 'href="/taste/"' in page.text
