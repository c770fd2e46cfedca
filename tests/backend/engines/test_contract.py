"""What every engine promises (`backend/engines/base.py`), held against all of them."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.engines.base import (
    Condition,
    EngineClosed,
    Generated,
    GenerationRequest,
    Message,
    Priority,
    Sampling,
    VersionRef,
)
from backend.errors import Unavailable
from tests.backend.engines.conftest import EngineCase
from tests.backend.engines.making import USERS
from trainer.artifacts import ArtifactDamaged

PROMPTS = (
    "How do I start running?",
    "Write two lines about rain.",
    "What is a good gift for a friend who has everything and likes cooking, maps and old trains?",
)
WAIT_S = 60.0


def ask(
    text: str = PROMPTS[0],
    condition: Condition = Condition.PERSONAL,
    user_id: int | None = 1,
    *,
    seed: int = 0,
    temperature: float = 0.9,
    tokens: int = 24,
    style: int | None = None,
) -> GenerationRequest:
    return GenerationRequest(
        messages=(Message(role="user", content=text),),
        condition=condition,
        user_id=user_id,
        sampling=Sampling(temperature=temperature, top_p=0.95, max_new_tokens=tokens, seed=seed),
        style=style,
    )


def answers(made: tuple[Generated, ...]) -> list[tuple[int, ...]]:
    return [response.token_ids for response in made]


def one(case: EngineCase, request: GenerationRequest) -> Generated:
    return case.engine.generate([request]).result(WAIT_S)[0]


def test_streamed_texts_only_grow_and_end_in_the_result(case: EngineCase) -> None:
    generation = case.engine.generate([ask(seed=1), ask(seed=2)])
    states = list(generation.stream())
    result = generation.result(WAIT_S)
    assert states[-1] == tuple(made.text for made in result)
    assert len(set(states)) == len(states)
    for before, after in itertools.pairwise(states):
        assert all(new.startswith(old) for old, new in zip(before, after, strict=True))
    assert all(made.text and made.text == made.text.strip() for made in result)
    assert list(generation.stream()) == [states[-1]], "can be read again after the end"


def test_a_response_is_cut_at_its_own_length_limit(case: EngineCase) -> None:
    made = case.engine.generate([ask(tokens=3), ask(tokens=9)]).result(WAIT_S)
    assert [len(response.token_ids) for response in made] == [3, 9]
    assert not any(response.ended for response in made)
    assert all(response.seconds >= 0 for response in made)


def test_all_responses_of_a_call_name_the_live_version(case: EngineCase) -> None:
    made = case.engine.generate(
        [ask(), ask(condition=Condition.GENERIC), ask(condition=Condition.BASE)]
    ).result(WAIT_S)
    assert {response.version_id for response in made} == {1}
    assert case.engine.live_version is not None
    assert case.engine.live_version.version_id == 1


def test_before_the_first_swap_there_is_nothing_to_serve(fresh_case: EngineCase) -> None:
    assert fresh_case.engine.live_version is None
    with pytest.raises(Unavailable):
        fresh_case.engine.generate([ask()])
    with pytest.raises(Unavailable):
        fresh_case.engine.score(ask().messages, [(5, 6)], Condition.GENERIC, None)


def test_the_initial_version_can_be_served(fresh_case: EngineCase, tmp_path: Path) -> None:
    fresh_case.engine.write_initial(tmp_path / "initial")
    fresh_case.engine.swap(VersionRef(7, tmp_path / "initial"))
    personal, generic = fresh_case.engine.generate(
        [ask(), ask(condition=Condition.GENERIC)]
    ).result(WAIT_S)
    assert personal.version_id == 7
    assert personal.token_ids == generic.token_ids, "nothing has been learnt yet"


def test_after_a_swap_new_calls_get_the_new_version(case: EngineCase) -> None:
    before = one(case, ask())
    version = case.new_version()
    case.engine.swap(version)
    assert case.engine.live_version == version
    after = one(case, ask())
    assert (before.version_id, after.version_id) == (1, 2)
    assert before.token_ids != after.token_ids


def test_a_base_response_does_not_depend_on_the_version(case: EngineCase) -> None:
    before = one(case, ask(condition=Condition.BASE, user_id=None))
    case.engine.swap(case.new_version())
    after = one(case, ask(condition=Condition.BASE, user_id=None))
    assert before.token_ids == after.token_ids


def test_a_running_generation_ends_on_the_version_it_began_with(slow_case: EngineCase) -> None:
    engine = slow_case.engine
    requests = [ask(tokens=60, seed=3), ask(PROMPTS[1], Condition.BASE, tokens=60, seed=4)]
    first = engine.live_version
    assert first is not None
    running = engine.generate(requests)
    states = running.stream()
    next(states)
    engine.swap(slow_case.new_version())
    later = engine.generate([ask(tokens=2)]).result(WAIT_S)[0]
    assert later.version_id == 2
    result = running.result(WAIT_S)
    assert {made.version_id for made in result} == {1}
    assert list(states)[-1] == tuple(made.text for made in result)
    engine.swap(VersionRef(3, first.path))
    undisturbed = engine.generate(requests).result(WAIT_S)
    assert answers(result) == answers(undisturbed), "no token was made by the new version"


def test_swaps_under_load_fail_and_mix_nothing(case: EngineCase) -> None:
    versions = [case.new_version() for _ in range(3)]
    expected = {1: one(case, ask(tokens=40)).token_ids}
    for version in versions:
        case.engine.swap(version)
        expected[version.version_id] = one(case, ask(tokens=40)).token_ids
    assert len(set(expected.values())) == 4, "every version answers in its own way"

    def serve(_: int) -> Generated:
        return one(case, ask(tokens=40))

    with ThreadPoolExecutor(4) as pool:
        served = pool.map(serve, range(40))
        for version in versions * 4:
            case.engine.swap(version)
        made = list(served)
    assert all(response.token_ids == expected[response.version_id] for response in made)


def test_a_damaged_version_is_refused_and_the_old_one_goes_on(case: EngineCase) -> None:
    before = one(case, ask())
    damaged = case.new_version()
    case.damage(damaged.path)
    with pytest.raises(ArtifactDamaged):
        case.engine.swap(damaged)
    with pytest.raises(ArtifactDamaged):
        case.engine.swap(VersionRef(9, damaged.path.parent / "nowhere"))
    assert one(case, ask()).token_ids == before.token_ids
    assert case.engine.live_version is not None
    assert case.engine.live_version.version_id == 1


def test_cancelling_returns_what_there_is(slow_case: EngineCase) -> None:
    generation = slow_case.engine.generate([ask(tokens=400), ask(tokens=400, seed=1)])
    next(generation.stream())
    generation.cancel()
    for made in generation.result(WAIT_S):
        assert not made.ended
        assert len(made.token_ids) < 400
    assert one(slow_case, ask(tokens=2)).token_ids, "the engine goes on"


def test_waiting_has_a_limit(slow_case: EngineCase) -> None:
    generation = slow_case.engine.generate([ask(tokens=400)])
    with pytest.raises(TimeoutError):
        generation.result(0.0)
    generation.cancel()
    assert generation.result(WAIT_S)


def test_closing_ends_what_is_unfinished(slow_case: EngineCase) -> None:
    running = [slow_case.engine.generate([ask(tokens=400)] * 4) for _ in range(4)]
    next(running[0].stream())
    slow_case.engine.close()
    slow_case.engine.close()
    for generation in running:
        with pytest.raises(EngineClosed):
            generation.result(WAIT_S)
        with pytest.raises(EngineClosed):
            list(generation.stream())
    with pytest.raises(EngineClosed):
        slow_case.engine.generate([ask()])
    with pytest.raises(EngineClosed):
        slow_case.engine.swap(slow_case.new_version())
    with pytest.raises(EngineClosed):
        slow_case.engine.score(ask().messages, [(5,)], Condition.BASE, None)


def test_the_seed_alone_fixes_the_draw_in_any_company(case: EngineCase) -> None:
    alone = one(case, ask(seed=11))
    company = [
        ask(PROMPTS[2], seed=1, temperature=0.0, tokens=5),
        ask(seed=11),
        ask(PROMPTS[1], Condition.GENERIC, seed=11, temperature=1.3),
        ask(seed=12),
        ask(PROMPTS[2], user_id=2, seed=3, tokens=40),
    ]
    together = case.engine.generate(company).result(WAIT_S)
    assert together[1].token_ids == alone.token_ids
    assert together[3].token_ids != alone.token_ids, "another seed, another draw"
    with ThreadPoolExecutor(4) as pool:  # joining and leaving while others are half way
        crowd = list(pool.map(lambda _: one(case, ask(seed=11)), range(8)))
    assert {made.token_ids for made in crowd} == {alone.token_ids}


def test_greedy_responses_ignore_the_seed(case: EngineCase) -> None:
    made = case.engine.generate([ask(seed=s, temperature=0.0) for s in (1, 2)]).result(WAIT_S)
    assert made[0].token_ids == made[1].token_ids


def test_users_differ_and_an_unknown_one_is_the_generic_user(case: EngineCase) -> None:
    made = case.engine.generate(
        [
            *(ask(user_id=user, temperature=0.0) for user in USERS),
            ask(user_id=999, temperature=0.0),
            ask(condition=Condition.GENERIC, user_id=1, temperature=0.0),
            ask(condition=Condition.BASE, user_id=1, temperature=0.0),
        ]
    ).result(WAIT_S)
    *personal, unknown, generic, base = answers(made)
    assert unknown == generic
    assert len({*personal, generic, base}) == len(USERS) + 2


def test_a_call_larger_than_the_batch_is_served(case: EngineCase) -> None:
    made = case.engine.generate([ask(seed=s, tokens=4) for s in range(11)]).result(WAIT_S)
    assert len({response.token_ids for response in made}) > 1
    assert len(made) == 11


def test_bad_requests_are_refused_at_once(case: EngineCase) -> None:
    with pytest.raises(ValueError, match="no request"):
        case.engine.generate([])
    with pytest.raises(ValueError, match="needs a user"):
        case.engine.generate([ask(user_id=None)])
    with pytest.raises(ValueError, match="no styles"):
        case.engine.generate([ask(condition=Condition.BASE, style=0)])
    with pytest.raises(ValueError, match="needs a user"):
        case.engine.score(ask().messages, [(5,)], Condition.PERSONAL, None)
    assistant: Message = {"role": "assistant", "content": "Hello."}
    with pytest.raises(ValueError, match="message of the user"):
        case.engine.generate(
            [
                GenerationRequest(
                    messages=(assistant,),
                    condition=Condition.BASE,
                    user_id=None,
                    sampling=Sampling(),
                )
            ]
        )


def test_scores_are_log_probs_per_response(case: EngineCase) -> None:
    messages = ask().messages
    responses = [(50, 60, 70), (50,), ()]
    scores = case.engine.score(messages, responses, Condition.PERSONAL, 1)
    assert scores[0] < scores[1] < scores[2] == 0.0
    assert case.engine.score(messages, responses[:1], Condition.PERSONAL, 1) == pytest.approx(
        scores[:1], abs=1e-3
    )
    assert case.engine.score(messages, responses, Condition.PERSONAL, 999) == pytest.approx(
        case.engine.score(messages, responses, Condition.GENERIC, None), abs=1e-3
    )
    assert case.engine.score(messages, responses, Condition.PERSONAL, 2) != scores
    assert case.engine.score(messages, [], Condition.BASE, None) == ()


def test_eight_threads_at_once(case: EngineCase) -> None:
    def work(thread: int) -> list[tuple[int, ...]]:
        priority = Priority.PREFETCH if thread % 2 else Priority.INTERACTIVE
        made = []
        for turn in range(3):
            request = ask(PROMPTS[turn], user_id=USERS[thread % 4], seed=thread, tokens=8)
            made += answers(case.engine.generate([request, request], priority).result(WAIT_S))
            case.engine.score(request.messages, made[-1:], Condition.GENERIC, None)
        return made

    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(work, range(8)))
        second = list(pool.map(work, range(8)))
    assert first == second


def test_identity_is_a_stable_checksum(case: EngineCase) -> None:
    assert case.engine.model_identity
    assert case.engine.model_identity == case.engine.model_identity
