"""Choices scored before a round may learn from them: by which version, with which sign, once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from backend import round_input
from backend.engines.base import Condition, Message
from backend.engines.echo import EchoEngine, write_version
from backend.lease import Lease
from backend.prequential import Scorer, wrong_user
from backend.round_input import RoundLimits
from backend.trainer_process import TrainerProcess
from backend.training import Training
from backend.versions import Versions
from db.models import Choice, PrequentialScore, Response
from db.session import Database
from tests.backend.house import CONFIG, IDENTITY, LIMIT_S, House
from tests.backend.judged import Judged
from tests.conftest import Clock

WAIT = timedelta(minutes=5)


def scorer_of(house: House) -> Scorer:
    return Scorer(house.database, house.engine, clock=house.clock)


def scores(database: Database) -> Sequence[PrequentialScore]:
    """In the order of the choices."""
    with database.read() as session:
        statement = select(PrequentialScore).order_by(PrequentialScore.choice_id)
        return session.scalars(statement).all()


def standing(house: House) -> Choice:
    """The newest choice."""
    with house.database.read() as session:
        return session.scalars(select(Choice).order_by(Choice.id.desc())).first()  # type: ignore[return-value]


def choose(house: House, verdict: str) -> int:
    view = list(house.desk.stream(house.user))[-1]
    assert view.comparison_id is not None
    return house.desk.choose(house.user, view.comparison_id, verdict)


def test_a_choice_is_scored_by_the_live_version_before_a_round_takes_it(
    make_house: Callable[..., House],
) -> None:
    house = make_house(score_wait=WAIT)
    first = house.live
    house.choose(4)
    house.training.tick()
    house.training.wait(LIMIT_S)
    assert house.newest_round() is None  # nothing is trained on unscored …
    assert str(house.insights.chip(house.user).until_next) == "learns in a moment"
    scorer_of(house).run()
    rows = scores(house.database)
    assert [(row.version_id, row.nth, row.wrong_nats) for row in rows] == [
        (first, nth, None) for nth in range(4)
    ]
    assert all(row.personal_nats == pytest.approx(row.generic_nats) for row in rows)
    assert any(row.personal_nats != 0 for row in rows)
    with house.database.read() as session:
        assert None not in session.scalars(select(Response.reference_logp_nats)).all()

    done = house.round()  # … and everything is trained on
    assert (done.status, house.uses(done.id)) == ("promoted", ["new"] * 4)
    house.choose(1)
    scorer_of(house).run()
    assert [row.version_id for row in scores(house.database)] == [first] * 4 + [first + 1]


def test_the_margin_is_how_far_chosen_moved_from_rejected(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    judged = Judged(house.database, house.clock)
    made = judged.comparison(house.user, house.live, tokens=((5, 6, 7), (8, 9)))
    judged.choice(house.user, made, "b")
    scorer_of(house).run()
    message: tuple[Message, ...] = ({"role": "user", "content": "How are you?"},)
    chosen, rejected, base_chosen, base_rejected = (
        house.engine.score(message, [ids], condition, house.user)[0]
        for condition in (Condition.PERSONAL, Condition.BASE)
        for ids in ((8, 9), (5, 6, 7))
    )
    (row,) = scores(house.database)
    expected = (chosen - rejected) - (base_chosen - base_rejected)
    assert row.personal_nats == pytest.approx(expected, abs=1e-3)


def test_after_learning_personal_foresees_what_generic_and_a_wrong_user_do_not(
    make_house: Callable[..., House],
) -> None:
    """Two users of opposed taste: tokens of one set against tokens of another.

    Two tokens in each, so that a round meets them all. Over ten draws of the pairs, and in two
    processors' ways of rounding, the mean margin is 44 to 93 nats, and at most one in 16 is wrong.
    """
    config = replace(CONFIG, epochs=8, learning_rate_vector=0.03)
    house = make_house(config=config, score_wait=WAIT)
    judged = Judged(house.database, house.clock)
    opposed = judged.user("ole")
    rng = random.Random(5)

    def judge(count: int) -> None:
        for _ in range(count):
            likes, dislikes = rng.choices((50, 51), k=4), rng.choices((90, 91), k=4)
            for user, verdict in ((house.user, "a"), (opposed, "b")):
                made = judged.comparison(user, house.live, tokens=(likes, dislikes))
                judged.choice(user, made, verdict)

    judge(8)
    scorer = scorer_of(house)
    scorer.run()
    before = scores(house.database)
    assert len(before) == 16
    assert house.round().status == "promoted"
    judge(8)
    scorer.run()
    after = scores(house.database)[16:]
    assert {row.wrong_user_id for row in after} == {house.user, opposed}
    assert all(row.wrong_user_id != row.user_id for row in after)

    def mean(margins: Sequence[float | None]) -> float:
        return sum(margin for margin in margins if margin is not None) / len(margins)

    personal = mean([row.personal_nats for row in after])
    generic = mean([row.generic_nats for row in after])
    wrong = mean([row.wrong_nats for row in after])
    # Every pair was judged both ways: a model that does not know the user breaks even.
    assert generic == pytest.approx(0.0, abs=1e-2)
    assert personal > 20 > -20 > wrong
    assert personal > 20 > mean([row.personal_nats for row in before])
    foreseen = sum(row.personal_nats > 0 for row in after)
    assert foreseen >= 13
    assert sum((row.wrong_nats or 0.0) > 0 for row in after) <= 3


def test_after_a_roll_back_the_older_version_scores(make_house: Callable[..., House]) -> None:
    house = make_house()
    first = house.live
    house.choose(4)
    assert house.round().status == "promoted"
    house.versions.roll_back(first, house.user)
    house.choose(1)
    scorer_of(house).run()
    assert [row.version_id for row in scores(house.database)] == [first]


def test_two_processes_score_each_choice_once(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.choose(6)
    together = threading.Barrier(2)

    def score() -> None:
        scorer = scorer_of(house)
        together.wait()
        scorer.run()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(score), pool.submit(score)]:
            done.result(LIMIT_S)
    assert [row.nth for row in scores(house.database)] == list(range(6))


def test_a_reason_is_no_new_choice_and_another_verdict_is(
    make_house: Callable[..., House],
) -> None:
    house = make_house(score_wait=WAIT)
    scorer = scorer_of(house)
    scored = choose(house, "a")
    scorer.run()
    house.desk.explain(house.user, scored, "shorter")
    scorer.run()
    assert [row.choice_id for row in scores(house.database)] == [scored]
    with house.database.read() as session:  # the row with the reason needs no score of its own
        ready = round_input.waiting(session, IDENTITY, house.clock() - WAIT)
    assert [candidate.choice_id for candidate in ready] == [standing(house).id]

    again = house.desk.undo(house.user).comparison_id
    assert again is not None
    other = house.desk.choose(house.user, again, "b")
    scorer.run()
    assert [row.choice_id for row in scores(house.database)] == [scored, other]


def test_a_pair_that_was_trained_on_is_not_scored_whatever_the_verdict_becomes(
    make_house: Callable[..., House],
) -> None:
    house = make_house(score_wait=WAIT)
    house.choose(4)
    house.clock.forward(minutes=6)  # nothing scored them in time
    assert house.round().status == "promoted"
    again = house.desk.undo(house.user).comparison_id
    assert again is not None
    house.desk.choose(house.user, again, "a")  # it was b
    scorer_of(house).run()
    assert scores(house.database) == []
    with house.database.read() as session:  # and it does not wait for what will not come
        assert len(round_input.waiting(session, IDENTITY, house.clock() - WAIT)) == 1


def test_ties_need_no_score_and_blind_pairs_do(make_house: Callable[..., House]) -> None:
    house = make_house(blind_share=1.0, score_wait=WAIT)
    choose(house, "a")
    choose(house, "tie")
    choose(house, "both_bad")
    until = house.clock() - WAIT

    def ready() -> list[str]:
        with house.database.read() as session:
            return [candidate.use for candidate in round_input.waiting(session, IDENTITY, until)]

    assert ready() == ["no_pair", "no_pair"]
    scorer_of(house).run()
    assert len(scores(house.database)) == 1
    assert ready() == ["held_out", "no_pair", "no_pair"]


def test_a_choice_that_cannot_be_scored_is_left_out_and_let_through_in_time(
    make_house: Callable[..., House],
) -> None:
    house = make_house(score_wait=WAIT)
    judged = Judged(house.database, house.clock)
    long = judged.comparison(house.user, house.live, tokens=(list(range(5, 605)), (5, 6)))
    unscorable = judged.choice(house.user, long, "a")
    house.choose(1)
    scorer = scorer_of(house)
    scorer.run()
    scorer.run()
    assert [row.choice_id for row in scores(house.database)] == [standing(house).id]

    def ready() -> list[int]:
        with house.database.read() as session:
            until = house.clock() - WAIT
            return [
                candidate.choice_id for candidate in round_input.waiting(session, IDENTITY, until)
            ]

    assert unscorable not in ready()
    house.clock.forward(minutes=6)
    assert unscorable in ready()


def test_after_a_restart_what_piled_up_is_scored_before_it_is_trained_on(
    make_house: Callable[..., House], trainer: TrainerProcess
) -> None:
    house = make_house(score_wait=WAIT)
    house.choose(4)
    house.clock.forward(hours=9)
    restarted = Training(
        house.database,
        trainer,
        house.versions,
        Lease(house.database, "here:2:0", clock=house.clock),
        identity=IDENTITY,
        config=CONFIG,
        limits=RoundLimits(new=20, replay=4, user_cap=20),
        min_choices=4,
        max_wait=timedelta(minutes=30),
        timeout_s=LIMIT_S,
        clock=house.clock,
        score_wait=WAIT,
    )
    restarted.tick()
    restarted.wait(LIMIT_S)
    assert house.newest_round() is None
    scorer_of(house).run()
    restarted.tick()
    restarted.wait(LIMIT_S)
    restarted.close()
    done = house.newest_round()
    assert done is not None
    assert (done.status, len(scores(house.database))) == ("promoted", 4)


def test_a_stopped_engine_or_scorer_leaves_the_choices_waiting(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    house.choose(2)
    stopped = scorer_of(house)
    stopped.close()
    stopped.run()
    house.engine.close()
    scorer_of(house).run()
    assert scores(house.database) == []


class Swapping(EchoEngine):
    """Goes over to another version in the middle of the first choice it scores."""

    def __init__(self) -> None:
        super().__init__()
        self.before_score: Callable[[], None] = lambda: None

    def score(
        self,
        messages: Sequence[Message],
        responses: Sequence[Sequence[int]],
        condition: Condition,
        user_id: int | None,
    ) -> tuple[float, ...]:
        if condition is Condition.GENERIC:
            self.before_score()
        return super().score(messages, responses, condition, user_id)


def test_all_margins_of_a_choice_are_of_one_version(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    engine = Swapping()
    versions = Versions(database, engine, tmp_path, clock=clock)
    versions.follow()
    judged = Judged(database, clock)
    user = judged.user("mia")
    assert engine.live_version is not None
    first = engine.live_version.version_id
    judged.choice(user, judged.comparison(user, first), "a")
    write_version(tmp_path / "next", flavour=1)

    def swap() -> None:
        engine.before_score = lambda: None
        with database.write() as session:
            versions.promote(session, "next", engine.model_identity, cause="round", round_id=None)
        versions.follow()

    engine.before_score = swap
    scorer = Scorer(database, engine, clock=clock)
    scorer.run()
    assert scores(database) == []  # half of it was made by one version, half by the other
    scorer.run()
    (row,) = scores(database)
    assert row.version_id == first + 1
    engine.close()


def test_the_wrong_user_is_somebody_else_and_the_same_each_time() -> None:
    drawn = [wrong_user(choice, 3, {1, 2, 3}) for choice in range(50)]
    assert set(drawn) == {1, 2}
    assert drawn == [wrong_user(choice, 3, {3, 2, 1}) for choice in range(50)]
    assert wrong_user(1, 3, {3}) is None
    assert wrong_user(1, 3, set()) is None
