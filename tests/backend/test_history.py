"""Every choice listed, searched and changed, and that rounds go by the one that stands."""

from __future__ import annotations

import random

import pytest

from backend import round_input
from backend.errors import Conflict, InvalidInput, NotFound
from backend.history import History
from backend.round_input import RoundInput, RoundLimits
from db.models import Choice, Prompt, Response
from db.session import Database
from tests.backend.judged import Judged
from tests.conftest import Clock

IDENTITY = "base"


@pytest.fixture
def judged(database: Database, clock: Clock) -> Judged:
    return Judged(database, clock)


@pytest.fixture
def history(database: Database, clock: Clock) -> History:
    return History(database, clock=clock)


def chosen(judged: Judged, user: int, version: int, verdict: str = "a") -> tuple[int, int]:
    """A comparison and the choice on it."""
    judged.clock.forward(seconds=1)
    comparison = judged.comparison(user, version)
    return comparison, judged.choice(user, comparison, verdict)


def gathered(judged: Judged) -> RoundInput:
    with judged.database.read() as session:
        return round_input.gather(
            session,
            IDENTITY,
            RoundLimits(new=20, replay=20, user_cap=20),
            0,
            random.Random(1),
            unscored_until=judged.clock(),
        )


def test_pages_hold_every_choice_that_stands_once(judged: Judged, history: History) -> None:
    user, other, version = judged.user("mia"), judged.user("jo"), judged.version()
    made = [chosen(judged, user, version, "skip")[0] for _ in range(7)]
    withdrawn, choice = chosen(judged, user, version)
    judged.choice(user, withdrawn, "withdrawn", supersedes=choice)
    chosen(judged, other, version)
    pages = [history.page(user, "", offset=offset, limit=3) for offset in (0, 3, 6)]
    listed = [row.comparison_id for page in pages for row in page.rows]
    assert listed == made[::-1]
    assert [(page.first, page.last, page.count) for page in pages] == [
        (1, 3, 7),
        (4, 6, 7),
        (7, 7, 7),
    ]
    assert history.page(user, "", offset=400, limit=3) == pages[2]
    assert history.page(judged.user("new"), "", offset=3, limit=3).rows == ()


def test_search_finds_prompts_responses_and_reasons_as_they_are_written(
    judged: Judged, history: History
) -> None:
    user, version = judged.user("mia"), judged.version()
    by_prompt, by_response, by_reason = (chosen(judged, user, version)[0] for _ in range(3))
    with judged.database.write() as session:
        session.query(Prompt).update({Prompt.text: "100% sure_ly"})
        session.query(Response).update({Response.text: "plain"})
        session.query(Response).filter_by(comparison_id=by_response, side="B").update(
            {Response.text: "Walk in the PARK"}
        )
        session.query(Choice).filter_by(comparison_id=by_reason).update(
            {Choice.reason: "it is shorter"}
        )

    def found(search: str) -> list[int]:
        page = history.page(user, search, offset=0, limit=9)
        assert page.count == len(page.rows)
        return sorted(row.comparison_id for row in page.rows)

    assert found(" park ") == [by_response]
    assert found("SHORTER") == [by_reason]
    assert found("0%") == [by_prompt, by_response, by_reason]
    assert found("_") == [by_prompt, by_response, by_reason]
    assert found("p_ain") == []
    assert found("x" * 5000) == []
    assert found("\x00") == [by_prompt, by_response, by_reason]
    assert found("\ud83d") == [by_prompt, by_response, by_reason]  # half of what a page sent


def test_search_ignores_case_in_every_script(judged: Judged, history: History) -> None:
    user, version = judged.user("mia"), judged.version()
    with_umlaut, greek = (chosen(judged, user, version)[0] for _ in range(2))
    with judged.database.write() as session:
        for comparison, text in ((with_umlaut, "Über Öl"), (greek, "αθήνα")):
            session.query(Response).filter_by(comparison_id=comparison).update(
                {Response.text: text}
            )
    for search, comparison in (("übeR ÖL", with_umlaut), ("ΑΘΉΝΑ", greek)):
        rows = history.page(user, search, offset=0, limit=9).rows
        assert [row.comparison_id for row in rows] == [comparison]


def test_a_change_supersedes_and_stays_where_it_was(judged: Judged, history: History) -> None:
    user, version = judged.user("mia"), judged.version()
    first, choice = chosen(judged, user, version)
    second, _ = chosen(judged, user, version)
    history.change(user, first, choice, verdict="b", strength=2, reason=" shorter ")
    rows = history.page(user, "", offset=0, limit=9).rows
    assert [row.comparison_id for row in rows] == [second, first]
    assert (rows[1].verdict, rows[1].strength, rows[1].reason) == ("b", 2, "shorter")
    view = history.view(user, first)
    assert (view.text_a, view.text_b) == ("A", "B")
    with judged.database.read() as session:
        old, new = session.get_one(Choice, choice), session.get_one(Choice, view.choice_id)
    assert (old.verdict, new.supersedes_id, new.decided_ms) == ("a", choice, old.decided_ms)


def test_saving_what_stands_adds_nothing(judged: Judged, history: History) -> None:
    user, version = judged.user("mia"), judged.version()
    comparison, choice = chosen(judged, user, version, "tie")
    history.change(user, comparison, choice, verdict="tie", strength=2)  # a tie has no strength
    assert history.view(user, comparison).choice_id == choice


def test_nobody_changes_what_is_not_theirs_or_has_changed(judged: Judged, history: History) -> None:
    user, other, version = judged.user("mia"), judged.user("jo"), judged.version()
    comparison, choice = chosen(judged, user, version)
    with pytest.raises(NotFound):
        history.change(other, comparison, choice, verdict="b")
    with pytest.raises(NotFound):
        history.view(other, comparison)
    for wrong in ({"verdict": "withdrawn"}, {"verdict": "a", "strength": 3}):
        with pytest.raises(InvalidInput):
            history.change(user, comparison, choice, **wrong)
    with pytest.raises(InvalidInput):
        history.change(user, comparison, choice, verdict="b", reason="x" * 501)
    history.change(user, comparison, choice, verdict="b")
    with pytest.raises(Conflict):
        history.change(user, comparison, choice, verdict="tie")
    assert history.view(user, comparison).row.verdict == "b"


def test_a_round_learns_from_what_stands(judged: Judged, history: History) -> None:
    user, version = judged.user("mia"), judged.version(IDENTITY)
    turned, choice = chosen(judged, user, version)
    dropped, other = chosen(judged, user, version)
    before = gathered(judged)
    assert [pair.pair_id for pair in before.pairs] == [choice, other]
    history.change(user, turned, choice, verdict="b")
    history.change(user, dropped, other, verdict="skip")
    (pair,) = gathered(judged).pairs
    assert pair.pair_id == history.view(user, turned).choice_id
    assert pair.chosen.token_ids == (8, 9, 10)


def test_a_choice_changed_after_a_round_is_learnt_anew_and_the_old_one_never_again(
    judged: Judged, history: History
) -> None:
    user, version = judged.user("mia"), judged.version(IDENTITY)
    comparison, choice = chosen(judged, user, version)
    judged.round(version, [choice])
    assert gathered(judged).uses == {choice: "replay"}
    history.change(user, comparison, choice, verdict="b")
    new = history.view(user, comparison).choice_id
    assert gathered(judged).uses == {new: "new"}
    history.change(user, comparison, new, verdict="skip")
    assert gathered(judged).uses == {}
