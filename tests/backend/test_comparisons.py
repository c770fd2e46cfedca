"""The desk: issue, choose, explain, undo, own prompts, on both databases with the echo engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from backend.engines.base import EngineClosed
from backend.errors import AttuneError, Conflict, InvalidInput, NotFound, Unavailable
from db.models import Choice, Comparison, Prompt, Response
from db.queries import comparisons as queries
from db.session import Database
from dev.waiting import wait_for
from tests.backend.echo_house import House, comparison_id, last, open_house, prefetcher_of
from tests.conftest import Clock


@pytest.fixture
def house(database: Database, clock: Clock, tmp_path: Path) -> Iterator[House]:
    """A desk without prefetching."""
    with open_house(database, clock, tmp_path) as house:
        yield house


def test_a_pair_streams_in_and_is_stored_whole(house: House) -> None:
    user = house.user("mia")
    views = list(house.desk.stream(user))
    assert all(not view.complete and view.comparison_id is None for view in views[:-1])
    assert len(views) > 2
    assert views[-1].complete
    with house.database.read() as session:
        responses = session.scalars(select(Response).order_by(Response.side)).all()
    assert [r.side for r in responses] == ["A", "B"]
    assert [r.text for r in responses] == [views[-1].text_a, views[-1].text_b]
    assert len({r.version_id for r in responses}) == 1
    assert responses[0].seed != responses[1].seed


def test_a_shown_pair_is_resumed_and_never_made_again(house: House) -> None:
    user = house.user("mia")
    first = last(house.desk.stream(user))
    assert list(house.desk.stream(user)) == [first]
    assert house.desk.ready(user) == first
    assert house.rows(Comparison) == 1


@pytest.mark.parametrize("away", [timedelta(days=30), timedelta(hours=-1)])
def test_how_long_somebody_was_away_is_no_time_to_decide(house: House, away: timedelta) -> None:
    user = house.user("mia")
    pair = last(house.desk.stream(user))
    house.clock.now += away
    house.desk.choose(user, comparison_id(pair), "a")
    with house.database.read() as session:
        assert session.scalars(select(Choice)).one().decided_ms is None


def test_a_choice_is_stored_once_and_the_next_pair_is_another_prompt(house: House) -> None:
    user = house.user("mia")
    first = last(house.desk.stream(user))
    house.clock.forward(seconds=3)
    house.desk.choose(user, comparison_id(first), "a", 2)
    with house.database.read() as session:
        choice = session.scalars(select(Choice)).one()
    assert (choice.verdict, choice.strength, choice.decided_ms) == ("a", 2, 3000)
    second = last(house.desk.stream(user))
    assert second.comparison_id != first.comparison_id
    assert second.prompt != first.prompt


def test_a_second_choice_is_a_conflict_and_not_stored(house: House) -> None:
    user = house.user("mia")
    pair = comparison_id(last(house.desk.stream(user)))
    house.desk.choose(user, pair, "tie")
    with pytest.raises(Conflict, match="answered this pair already"):
        house.desk.choose(user, pair, "b")
    assert house.rows(Choice) == 1


def test_eight_clicks_at_once_are_one_choice(house: House) -> None:
    user = house.user("mia")
    pair = comparison_id(last(house.desk.stream(user)))
    outcomes: list[str] = []

    def click() -> None:
        try:
            house.desk.choose(user, pair, "a")
            outcomes.append("stored")
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=click) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 7 + ["stored"]
    assert house.rows(Choice) == 1


def test_nobody_judges_someone_elses_pair(house: House) -> None:
    mia, ben = house.user("mia"), house.user("ben")
    pair = comparison_id(last(house.desk.stream(mia)))
    with pytest.raises(NotFound):
        house.desk.choose(ben, pair, "a")
    choice = house.desk.choose(mia, pair, "a")
    with pytest.raises(NotFound):
        house.desk.explain(ben, choice, "shorter")
    with pytest.raises(NotFound, match="nothing to undo"):
        house.desk.undo(ben)
    with pytest.raises(NotFound):
        house.desk.choose(ben, 10_000, "a")
    assert house.rows(Choice) == 1


@pytest.mark.parametrize(
    ("verdict", "strength"), [("c", None), ("", 1), ("a", 3), ("withdrawn", 1)]
)
def test_unknown_answers_are_refused(house: House, verdict: str, strength: int | None) -> None:
    user = house.user("mia")
    pair = comparison_id(last(house.desk.stream(user)))
    with pytest.raises(InvalidInput):
        house.desk.choose(user, pair, verdict, strength)
    assert house.rows(Choice) == 0


def test_a_reason_supersedes_and_keeps_the_verdict(house: House) -> None:
    user = house.user("mia")
    pair = comparison_id(last(house.desk.stream(user)))
    first = house.desk.choose(user, pair, "b", 1)
    second = house.desk.explain(user, first, " shorter ")
    third = house.desk.explain(user, second, "clearer\ud83d")  # half a character, as JSON may send
    with pytest.raises(Conflict):
        house.desk.explain(user, first, "friendlier")
    with house.database.read() as session:
        standing = queries.effective_choice(session, pair)
        assert queries.count_choices(session, user) == 1
    assert standing is not None
    assert (standing.id, standing.verdict, standing.reason) == (third, "b", "clearer")
    for reason in ("", " ", "x" * 501):
        with pytest.raises(InvalidInput):
            house.desk.explain(user, third, reason)


def test_undo_opens_the_pair_again_and_keeps_the_record(house: House) -> None:
    user = house.user("mia")
    first = last(house.desk.stream(user))
    house.desk.choose(user, comparison_id(first), "a")
    second = last(house.desk.stream(user))
    house.clock.forward(seconds=1)
    assert house.desk.undo(user) == first
    assert house.desk.ready(user) == first
    house.desk.choose(user, comparison_id(first), "b")
    with house.database.read() as session:
        verdicts = session.scalars(select(Choice.verdict).order_by(Choice.id)).all()
        assert queries.count_choices(session, user) == 1
    assert verdicts == ["a", "withdrawn", "b"]
    assert house.desk.ready(user) == second


def test_undo_goes_back_one_choice_at_a_time(house: House) -> None:
    user = house.user("mia")
    pairs = []
    for _ in range(2):
        pairs.append(last(house.desk.stream(user)))
        house.clock.forward(seconds=1)
        house.desk.choose(user, comparison_id(pairs[-1]), "a")
    for pair in reversed(pairs):
        house.clock.forward(seconds=1)
        assert house.desk.undo(user) == pair
    with pytest.raises(NotFound):
        house.desk.undo(user)


def test_an_own_prompt_comes_first_and_the_open_pair_comes_back(house: House) -> None:
    user = house.user("mia")
    waiting = last(house.desk.stream(user))
    house.clock.forward(seconds=1)
    own = last(house.desk.ask(user, "  Why is the sky blue?  "))
    assert (own.prompt, own.own) == ("Why is the sky blue?", True)
    assert house.desk.ready(user) == own
    house.desk.choose(user, comparison_id(own), "a")
    assert house.desk.ready(user) == waiting


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Type a question"),
        (" \n\0", "Type a question"),
        ("\ud83d", "Type a question"),
        ("x" * 101, "101 characters"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(house: House, text: str, words: str) -> None:
    user = house.user("mia")
    before = house.rows(Prompt)
    with pytest.raises(InvalidInput, match=words):
        list(house.desk.ask(user, text))
    assert house.rows(Prompt) == before
    assert house.rows(Comparison) == 0


@pytest.mark.parametrize(
    ("refusal", "told"), [(ValueError("6000 tokens"), InvalidInput), (EngineClosed(), Unavailable)]
)
def test_a_prompt_that_the_model_refuses_is_not_kept(
    house: House, monkeypatch: pytest.MonkeyPatch, refusal: Exception, told: type[AttuneError]
) -> None:
    def refuse(*_: object) -> None:
        raise refusal

    user = house.user("mia")
    before = house.rows(Prompt)
    monkeypatch.setattr(house.engine, "generate", refuse)
    with pytest.raises(told):
        list(house.desk.ask(user, "Why is the sky blue?"))
    assert house.rows(Prompt) == before


def test_a_page_that_goes_away_loses_nothing(house: House) -> None:
    user = house.user("mia")
    shown = next(house.desk.stream(user))
    again = last(house.desk.stream(user))
    assert again.prompt == shown.prompt
    assert house.rows(Comparison) == 1


def test_when_every_prompt_was_seen_the_oldest_comes_again(house: House) -> None:
    user = house.user("mia")
    with house.database.write() as session:
        kept = session.scalars(select(Prompt.id).order_by(Prompt.id).limit(2)).all()
        session.execute(update(Prompt).where(Prompt.id.not_in(kept)).values(active=False))
    seen = []
    for _ in range(3):
        view = last(house.desk.stream(user))
        seen.append(view.prompt)
        house.desk.choose(user, comparison_id(view), "skip")
    assert seen[0] != seen[1]
    assert seen[2] in seen[:2]
    with house.database.read() as session:
        assert queries.count_choices(session, user) == 0


def test_prefetched_pairs_are_there_at_once_and_replaced_after_a_swap(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    wanted: list[Callable[[int], None]] = []

    def take(user: int) -> None:
        wanted[0](user)

    with open_house(database, clock, tmp_path, take) as house:
        prefetcher = prefetcher_of(house, target=2, gives_way_s=0.3)
        wanted.append(prefetcher.wanted)
        house.versions.on_swap(prefetcher.look_again)
        user = house.user("mia")
        first = last(house.desk.stream(user))
        wait_for(lambda: _prefetched(house, user) == 2)
        house.desk.choose(user, comparison_id(first), "a")
        second = house.desk.ready(user)
        assert second is not None
        wait_for(lambda: _prefetched(house, user) == 2)

        house.engine.write_initial(tmp_path / "next")
        with database.write() as session:
            identity = house.engine.model_identity
            house.versions.promote(session, "next", identity, cause="initial", round_id=None)
        house.versions.follow()
        wait_for(lambda: _versions_waiting(house, user) == [2, 2])
        assert house.desk.ready(user) == second
        prefetcher.close()


def test_pairs_ahead_wait_until_the_page_is_drawn(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    with open_house(database, clock, tmp_path, lambda user: None) as house:
        prefetcher = prefetcher_of(house, gives_way_s=60.0)
        user = house.user("mia")
        prefetcher.wanted(user)
        with pytest.raises(TimeoutError):
            wait_for(lambda: _prefetched(house, user) > 0, within_s=0.5)
        prefetcher.close()  # does not wait for the end of it
        assert house.maker.under_way(user) == ()


def _prefetched(house: House, user: int) -> int:
    live = house.engine.live_version
    assert live is not None
    with house.database.read() as session:
        return queries.count_prefetched(session, user, live.version_id)


def _versions_waiting(house: House, user: int) -> list[int]:
    with house.database.read() as session:
        statement = (
            select(Response.version_id)
            .join(Comparison)
            .where(
                Comparison.user_id == user,
                Comparison.shown_at.is_(None),
                Comparison.retired_at.is_(None),
                Response.side == "A",
            )
        )
        return sorted(session.scalars(statement))
