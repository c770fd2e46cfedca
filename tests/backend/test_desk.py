"""More of the desk, on both databases: choosing early, turns, topics, repeats, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from backend import round_input
from backend.comparison_views import ComparisonView
from backend.engines.base import Condition
from backend.errors import Conflict, InvalidInput, NotFound
from backend.preferences import DeskPreferences, Today
from backend.prompts import OWN_TOPIC
from db.models import Choice, Prompt, Response
from db.queries import comparisons as queries
from db.queries import evidence as evidence_queries
from db.session import Database
from tests.backend.echo_house import House, comparison_id, judge, last, open_house, row
from tests.conftest import Clock

MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(database: Database, clock: Clock, tmp_path: Path) -> Iterator[MakeHouse]:
    opened = []

    def make(**options: object) -> House:
        manager = open_house(database, clock, tmp_path, **options)  # type: ignore[arg-type]
        opened.append(manager)
        return manager.__enter__()

    yield make
    for manager in opened:
        manager.__exit__(None, None, None)


def _some_of(views: Iterator[ComparisonView]) -> ComparisonView:
    """The first view there is enough of to choose by."""
    return next(view for view in views if view.judgeable)


def test_a_choice_ends_the_writing_and_keeps_what_there_was(make_house: MakeHouse) -> None:
    house = make_house(word_delay_s=0.05)
    user = house.user("mia")
    views = house.desk.stream(user)
    seen = _some_of(views)
    assert seen.making_key is not None
    house.clock.forward(seconds=4)
    choice_id = house.desk.choose_early(user, seen.making_key, "a", 2)
    assert list(views) == [], "nobody is shown a judged pair"
    with house.database.read() as session:
        choice = session.get_one(Choice, choice_id)
        texts = session.scalars(select(Response).order_by(Response.side)).all()
    assert (choice.verdict, choice.strength, choice.decided_ms) == ("a", 2, 4000)
    assert row(house, choice.comparison_id).stopped_at is not None
    for text, response in zip((seen.text_a, seen.text_b), texts, strict=True):
        assert response.text.startswith(text)
        assert len(response.token_ids) == len(response.text.split()), "tokens of what was shown"
        assert not response.ended
    with pytest.raises(Conflict):
        house.desk.choose_early(user, seen.making_key, "b")
    assert last(house.desk.stream(user)).prompt != seen.prompt


def test_what_was_asked_goes_on_where_the_page_is_loaded_again(make_house: MakeHouse) -> None:
    house = make_house(word_delay_s=0.05)
    user = house.user("mia")
    banked = last(house.desk.stream(user))
    next(house.desk.ask(user, "Why me?"))
    assert last(house.desk.stream(user)).prompt == "Why me?"
    judge(house, user)
    assert last(house.desk.stream(user)) == banked


def test_stopping_leaves_a_pair_to_choose(make_house: MakeHouse) -> None:
    house = make_house(word_delay_s=0.05)
    user, other = house.user("mia"), house.user("ben")
    views = house.desk.stream(user)
    seen = _some_of(views)
    assert seen.making_key is not None
    with pytest.raises(NotFound):
        house.desk.stop(other, seen.making_key)
    with pytest.raises(NotFound):
        house.desk.choose_early(other, seen.making_key, "a")
    house.desk.stop(user, seen.making_key)
    final = last(views)
    assert final.complete
    assert final.text_a.startswith(seen.text_a)
    assert row(house, comparison_id(final)).stopped_at is not None
    house.desk.choose(user, comparison_id(final), "b")


def test_too_little_to_choose_by(make_house: MakeHouse) -> None:
    house = make_house(word_delay_s=0.05)
    user = house.user("mia")
    views = house.desk.stream(user)
    first = next(views)
    assert first.making_key is not None
    assert not first.judgeable
    assert first.progress is not None
    with pytest.raises(InvalidInput, match="too little"):
        house.desk.stop(user, first.making_key)
    with pytest.raises(InvalidInput, match="not one of the answers"):
        house.desk.choose_early(user, first.making_key, "withdrawn")
    with pytest.raises(NotFound, match="gone"):
        house.desk.choose_early(user, first.making_key + 1, "a")
    assert last(views).complete


def test_a_whole_pair_was_not_stopped(make_house: MakeHouse) -> None:
    house = make_house()
    user = house.user("mia")
    views = list(house.desk.stream(user))
    key = views[0].making_key
    assert key is not None
    # The click was on its way when the writing ended.
    house.desk.choose_early(user, key, "a")
    assert row(house, comparison_id(views[-1])).stopped_at is None


def test_progress_tells_what_is_usual(make_house: MakeHouse) -> None:
    house = make_house()
    user = house.user("mia")
    first = next(house.desk.stream(user))
    assert first.progress is not None
    assert first.progress.usual_s is None
    judge(house, user)
    progress = next(house.desk.stream(user)).progress
    assert progress is not None
    assert progress.usual_s is not None
    assert progress.usual_s > 0


def test_a_follow_up_goes_on_with_the_chosen_response(make_house: MakeHouse) -> None:
    house = make_house()
    user, other = house.user("mia"), house.user("ben")
    first = last(house.desk.ask(user, "Name a tree."))
    choice = house.desk.choose(user, comparison_id(first), "b")
    second = last(house.desk.follow_up(user, choice, "And a bird?"))
    assert [turn["content"] for turn in second.earlier] == ["Name a tree.", first.text_b]
    assert (second.prompt, second.topic) == ("And a bird?", OWN_TOPIC)
    assert row(house, comparison_id(second)).continues_id == first.comparison_id
    assert house.desk.ready(user) == second, "also after a reload"
    choice = house.desk.choose(user, comparison_id(second), "a")
    house.desk.explain(user, choice, "clearer")  # while the reply was being typed
    third = last(house.desk.follow_up(user, choice, "Why?"))
    assert [turn["role"] for turn in third.earlier] == ["user", "assistant"] * 2
    with pytest.raises(NotFound):
        next(house.desk.follow_up(other, choice, "Why?"))
    gone = house.desk.choose(user, comparison_id(third), "a")
    house.desk.undo(user)
    with pytest.raises(Conflict, match="changed since"):
        next(house.desk.follow_up(user, gone, "Why?"))
    house.desk.choose(user, comparison_id(third), "tie")
    with house.database.read() as session:
        tie = session.scalars(select(Choice.id).order_by(Choice.id.desc())).first()
    assert tie is not None
    with pytest.raises(InvalidInput, match="preferred"):
        next(house.desk.follow_up(user, tie, "Why?"))


def test_the_trainer_reads_the_whole_conversation(make_house: MakeHouse) -> None:
    house = make_house()
    user = house.user("mia")
    first = last(house.desk.ask(user, "Name a tree."))
    choice = house.desk.choose(user, comparison_id(first), "a")
    second = last(house.desk.follow_up(user, choice, "And a bird?"))
    choice = house.desk.choose(user, comparison_id(second), "b")
    with house.database.read() as session:
        pair = round_input.load_pairs(session, "base", [choice])[choice]
    assert pair.messages == (
        {"role": "user", "content": "Name a tree."},
        {"role": "assistant", "content": first.text_a},
        {"role": "user", "content": "And a bird?"},
    )


def test_never_again_and_undo(make_house: MakeHouse) -> None:
    house = make_house()
    user, other = house.user("mia"), house.user("ben")
    with house.database.write() as session:
        kept = session.scalars(select(Prompt.id).order_by(Prompt.id).limit(2)).all()
        for prompt in session.scalars(select(Prompt).where(Prompt.id.not_in(kept))):
            prompt.active = False
    refused = last(house.desk.stream(user))
    with pytest.raises(NotFound):
        house.desk.never_again(other, comparison_id(refused))
    house.desk.never_again(user, comparison_id(refused))
    shown = [judge(house, user, "skip").prompt for _ in range(3)]
    assert refused.prompt not in shown
    for _ in range(4):
        house.desk.undo(user)
        house.clock.forward(seconds=1)
    for _ in range(5):
        shown.append(judge(house, user, "tie").prompt)
    assert refused.prompt in shown


def test_liked_topics_come_more_often(make_house: MakeHouse) -> None:
    house = make_house()
    user = house.user("mia")
    preferences = DeskPreferences(house.database, clock=house.clock, daily_goal=20)
    topic = preferences.of(user).topics[3]
    with pytest.raises(InvalidInput, match="no topic"):
        preferences.like(user, ["weather on Mars"])
    preferences.like(user, [topic, topic])
    assert preferences.of(user).liked == (topic,)
    topics = [judge(house, user).topic for _ in range(10)]
    assert topics.count(topic) >= 5
    preferences.like(user, [])
    assert preferences.of(user).liked == ()


def test_keys_can_be_switched_off(make_house: MakeHouse) -> None:
    house = make_house()
    user, other = house.user("mia"), house.user("ben")
    preferences = DeskPreferences(house.database, clock=house.clock, daily_goal=20)
    preferences.use_keys(user, False)
    assert not preferences.of(user).keys
    assert preferences.of(other).keys
    preferences.use_keys(user, True)
    assert preferences.of(user).keys


def test_today_begins_where_the_user_lives(make_house: MakeHouse) -> None:
    house = make_house()
    user = house.user("mia")
    preferences = DeskPreferences(house.database, clock=house.clock, daily_goal=20)
    judge(house, user)  # at noon UTC
    judge(house, user, "skip")
    assert preferences.today(user) == Today(done=1, goal=20)
    house.clock.forward(hours=10)  # 22:00
    assert preferences.today(user).done == 1
    assert preferences.today(user, 180).done == 0, "in Moscow it is tomorrow"
    house.clock.forward(hours=3)
    assert preferences.today(user).done == 0
    assert preferences.today(user, -300).done == 1, "in New York it is still today"
    assert preferences.today(user, 10**9).done == 1, "no clock is further ahead than 14 hours"


def test_when_told_the_pair_is_blind_no_more(make_house: MakeHouse) -> None:
    house = make_house(reveal=True)
    user, other = house.user("mia"), house.user("ben")
    while True:
        view = last(house.desk.stream(user))
        choice = house.desk.choose(user, comparison_id(view), "a")
        if row(house, comparison_id(view)).purpose == "blind":
            break
    with pytest.raises(NotFound):
        house.desk.reveal(other, choice)
    house.clock.forward(seconds=1)
    told = house.desk.reveal(user, choice)
    assert told is not None
    assert set(told) == {Condition.PERSONAL, Condition.GENERIC}
    identity = house.engine.model_identity

    def counted() -> int:
        with house.database.read() as session:
            return sum(each.count for each in evidence_queries.blind_counts(session, identity))

    before = counted()
    house.clock.forward(seconds=1)
    house.desk.explain(user, choice, "clearer")
    assert counted() == before, "a reason changes no verdict"
    house.desk.undo(user)
    house.desk.choose(user, comparison_id(view), "b")
    assert counted() == before - 1, "chosen with open eyes"


def test_nothing_is_told_unless_the_study_says_so(make_house: MakeHouse) -> None:
    house = make_house()
    user = house.user("mia")
    view = last(house.desk.stream(user))
    choice = house.desk.choose(user, comparison_id(view), "a")
    assert house.desk.reveal(user, choice) is None
    assert row(house, comparison_id(view)).revealed_at is None


def test_a_kept_choice_is_stored_once(make_house: MakeHouse) -> None:
    house = make_house()
    user, other = house.user("mia"), house.user("ben")
    pair = comparison_id(last(house.desk.stream(user)))
    with pytest.raises(NotFound):
        house.desk.choose_kept(other, pair, "a")
    first = house.desk.choose_kept(user, pair, "a", 2)
    assert house.desk.choose_kept(user, pair, "a", 2) == first
    with pytest.raises(Conflict):
        house.desk.choose_kept(user, pair, "b")
    with house.database.read() as session:
        choice = session.scalars(select(Choice)).one()
        assert queries.count_choices(session, user) == 1
    assert (choice.verdict, choice.strength, choice.decided_ms) == ("a", 2, None)


def test_an_empty_response_is_written_again(make_house: MakeHouse) -> None:
    house = make_house()
    user, other = house.user("mia"), house.user("ben")
    view = last(house.desk.stream(user))
    pair = comparison_id(view)
    with house.database.write() as session:
        session.execute(
            update(Response)
            .where(Response.comparison_id == pair, Response.side == "B")
            .values(text=" ", token_ids=[0])
        )
    with pytest.raises(NotFound):
        house.desk.write_again(other, pair, "B")
    with pytest.raises(InvalidInput, match="already"):
        house.desk.write_again(user, pair, "A")
    again = house.desk.write_again(user, pair, "B")
    assert again.text_a == view.text_a
    assert again.text_b.strip()
    with house.database.read() as session:
        first, second = session.scalars(select(Response).order_by(Response.side))
    assert (first.attempts, second.attempts) == (1, 2)
    assert len(second.token_ids) > 1
    house.desk.choose(user, pair, "tie")
    with pytest.raises(Conflict):
        house.desk.write_again(user, pair, "B")


def test_what_was_read_of_the_empty_response_is_not_kept_for_the_new_one(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    user, identity = house.user("mia"), house.engine.model_identity
    pair = comparison_id(last(house.desk.stream(user)))
    with house.database.write() as session:
        session.execute(update(Response).where(Response.side == "B").values(text=""))
        ids = session.scalars(select(Response.id).order_by(Response.side)).all()
        # As scoring does; then the choice is taken back.
        round_input.store_reference(session, identity, {ids[0]: -3.0, ids[1]: -1.0})
    house.desk.write_again(user, pair, "B")
    with house.database.read() as session:
        first, second = session.scalars(select(Response).order_by(Response.side))
    assert (first.reference_logp_nats, first.reference_identity) == (-3.0, identity)
    assert (second.reference_logp_nats, second.reference_identity) == (None, None)


def test_it_was_clear_after_all(make_house: MakeHouse) -> None:
    house = make_house()
    user, other = house.user("mia"), house.user("ben")
    pair = comparison_id(last(house.desk.stream(user)))
    choice = house.desk.explain(user, house.desk.choose(user, pair, "b", 1), "shorter")
    with pytest.raises(NotFound):
        house.desk.strengthen(other, choice)
    house.desk.strengthen(user, choice)
    with house.database.read() as session:
        standing = queries.effective_choice(session, pair)
    assert standing is not None
    assert (standing.verdict, standing.strength, standing.reason) == ("b", 2, "shorter")
    with pytest.raises(Conflict):
        house.desk.strengthen(user, choice)
    tie = house.desk.choose(user, comparison_id(last(house.desk.stream(user))), "tie")
    with pytest.raises(InvalidInput):
        house.desk.strengthen(user, tie)


def test_another_version_writes_nothing_again(make_house: MakeHouse, tmp_path: Path) -> None:
    house = make_house()
    user = house.user("mia")
    pair = comparison_id(last(house.desk.stream(user)))
    with house.database.write() as session:
        session.execute(update(Response).values(text=""))
        identity = house.engine.model_identity
        house.engine.write_initial(tmp_path / "next")
        house.versions.promote(session, "next", identity, cause="initial", round_id=None)
    house.versions.follow()
    with pytest.raises(Conflict, match="has learnt since"):
        house.desk.write_again(user, pair, "A")
