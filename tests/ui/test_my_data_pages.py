"""Taking one's data along and erasing oneself, as a browser meets it."""

from __future__ import annotations

import json
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


def test_the_download_is_ones_own(site: Site) -> None:
    mara, jonas = site.member("mara"), site.member("jonas")
    for client, name in ((mara, "mara"), (jonas, "jonas")):
        answer = client.get("/taste/data.jsonl?user_id=1")
        assert (
            answer.headers["content-disposition"] == 'attachment; filename="attune-my-data.jsonl"'
        )
        assert answer.headers["cache-control"] == "no-store"
        records = [json.loads(line) for line in answer.text.splitlines()]
        assert [record.get("name") for record in records if record["kind"] == "account"] == [name]
    assert site.visitor().get("/taste/data.jsonl").headers["location"] == "/login?next=/taste/"


def test_erasing_says_what_asks_for_the_name_and_signs_out(site: Site) -> None:
    here, there = site.member("mara"), site.visitor()
    there.post("/login", data={"username": "mara", "password": GOOD})
    page = text(here.get("/taste/erase"))
    for promise in ("At once", "Soon, by itself", "cannot be singled out", "backups"):
        assert promise in page
    wrong = here.post("/taste/erase", data={"name": "<b>jonas"})
    assert wrong.status_code == 400
    assert "Nothing was erased" in text(wrong)
    assert "<b>jonas" not in wrong.text
    assert who(here) is not None
    done = here.post("/taste/erase", data={"name": "mara"})
    assert done.status_code == 200
    assert "You are erased" in text(done)
    assert who(here) is None
    assert who(there) is None
    back = site.visitor().post("/login", data={"username": "mara", "password": GOOD})
    assert back.status_code == 400


def test_a_stranger_and_the_last_admin_erase_nobody(site: Site) -> None:
    for answer in (site.visitor().get("/taste/erase"), site.visitor().post("/taste/erase")):
        assert answer.headers["location"] == "/login?next=/taste/erase"
    admin = site.admin()
    refused = admin.post("/taste/erase", data={"name": "chief"})
    assert refused.status_code == 409
    assert "only admin" in text(refused)
    assert who(admin) is not None
