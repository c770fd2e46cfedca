"""A person's own account, and what admins do below it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.backend.people import GOOD
from tests.conftest import Clock
from tests.ui.visiting import Site, text, who


@pytest.fixture
def site(sqlite_url: str, clock: Clock) -> Iterator[Site]:
    site = Site(sqlite_url, clock)
    yield site
    site.close()


def test_the_account_page_is_for_who_is_signed_in(site: Site) -> None:
    visitor = site.visitor()
    for request in (
        visitor.get("/account"),
        visitor.post("/account/password"),
        visitor.post("/account/users"),
    ):
        assert request.headers["location"] == "/login?next=/account"


def test_changing_the_password_signs_other_browsers_out(site: Site) -> None:
    here, there = site.member("mara"), site.visitor()
    there.post("/login", data={"username": "mara", "password": GOOD})
    wrong = here.post("/account/password", data={"current": "wrong", "new": "another sentence"})
    assert wrong.status_code == 400
    assert "present password is not right" in text(wrong)
    done = here.post("/account/password", data={"current": GOOD, "new": "another sentence"})
    assert done.headers["location"] == "/account?done=password"
    assert who(here) is not None
    assert who(there) is None


def test_looking_at_an_invite_does_not_use_it(site: Site) -> None:
    token = site.administration.first_admin_invite()
    for _ in range(3):
        page = site.visitor().get(f"/invite/{token}")
        assert page.status_code == 200
        assert "You are invited as an admin" in text(page)
    short = site.visitor().post(f"/invite/{token}", data={"username": "chief", "password": "short"})
    assert short.status_code == 400
    assert "at least 10" in text(short)
    client = site.visitor()
    client.post(f"/invite/{token}", data={"username": "chief", "password": GOOD})
    assert "Invites" in text(client.get("/account"))
    used = site.visitor().get(f"/invite/{token}")
    assert used.status_code == 404
    assert "has been used or has expired" in text(used)
    late = site.visitor().post(f"/invite/{token}", data={"username": "late", "password": GOOD})
    assert late.status_code == 404


def test_an_admin_makes_a_link_that_is_shown_once(site: Site) -> None:
    admin = site.admin()
    assert admin.post("/account/invites", data={"role": "researcher"}).status_code == 303
    link = re.search(r'value="http://testserver(/invite/[^"]+)"', admin.get("/account").text)
    assert link is not None
    assert "/invite/" not in admin.get("/account").text
    mara = site.member("mara")
    assert "signed in as mara" in text(mara.get(link[1]))
    assert mara.post(link[1]).headers["location"] == "/account?done=role"
    assert "Researcher" in text(mara.get("/account"))


def test_a_planted_link_is_not_shown_as_ours(site: Site) -> None:
    admin = site.admin()
    admin.cookies.set("attune_invite", "../evil", domain="testserver.local", path="/")
    assert "evil" not in admin.get("/account").text


def test_a_withdrawn_invite_is_gone(site: Site) -> None:
    admin = site.admin()
    admin.post("/account/invites", data={"role": "annotator"})
    page = admin.get("/account").text
    number = re.search(
        r'action="/account/withdraw"><input type="hidden" name="id" value="(\d+)"', page
    )
    link = re.search(r"(/invite/[^\"]+)", page)
    assert number is not None
    assert link is not None
    admin.post("/account/withdraw", data={"id": number[1]})
    assert site.visitor().get(link[1]).status_code == 404


def test_admins_see_who_is_simulated_and_cannot_raise_them(site: Site) -> None:
    admin = site.admin()
    persona = site.accounts.simulated("persona: warm", {"rule": "warm"})
    assert "persona: warm simulated" in text(admin.get("/account"))
    raised = admin.post("/account/users", data={"id": persona.id, "role": "admin"})
    assert raised.status_code == 409
    assert "Only people" in text(raised)


def test_a_guest_takes_an_invite_along_with_the_account(site: Site) -> None:
    admin, guest = site.admin(), site.visitor()
    guest.post("/guest")
    user_id = who(guest)
    token = site.administration.invite(int(str(who(admin))), "researcher")
    assert "come along" in text(guest.get(f"/invite/{token}"))
    guest.post(f"/invite/{token}", data={"username": "mara", "password": GOOD})
    assert who(guest) == user_id
    assert "Researcher" in text(guest.get("/account"))


def test_an_admin_sets_roles_and_switches_accounts_off(site: Site) -> None:
    admin, mara = site.admin(), site.member("mara")
    user_id = who(mara)
    admin.post("/account/users", data={"id": user_id, "role": "researcher"})
    assert "Researcher" in text(mara.get("/account"))
    assert "mara" in text(admin.get("/account?q=MAR"))
    assert "Nobody by that name" in text(admin.get("/account?q=zz"))
    admin.post("/account/users", data={"id": user_id, "act": "disable"})
    assert who(mara) is None
    refused = mara.post("/login", data={"username": "mara", "password": GOOD})
    assert refused.status_code == 403
    assert "disabled" in text(refused)
    admin.post("/account/users", data={"id": user_id, "act": "enable"})
    assert mara.post("/login", data={"username": "mara", "password": GOOD}).status_code == 303
    last = admin.post("/account/users", data={"id": who(admin), "role": "annotator"})
    assert last.status_code == 409
    assert "another admin" in text(last)


def test_others_see_and_do_nothing_of_that(site: Site) -> None:
    admin, mara = site.admin(), site.member("mara")
    assert "Invites" not in text(mara.get("/account"))
    for path, form in (
        ("/account/invites", {"role": "admin"}),
        ("/account/withdraw", {"id": "1"}),
        ("/account/users", {"id": who(mara), "role": "admin"}),
        ("/account/users", {"id": who(admin), "act": "disable"}),
    ):
        assert mara.post(path, data=form).status_code == 403
    assert who(admin) is not None


def test_what_one_gave_is_in_one_place_only(site: Site) -> None:
    page = site.member("mara").get("/account")
    assert 'href="/taste/"' in page.text
    assert "textarea" not in page.text
