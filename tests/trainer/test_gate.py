"""Each refusal on its own, each bound from both sides."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from trainer.config import GateConfig
from trainer.gate import (
    GateFigures,
    HeldOutPair,
    RoundPair,
    ill_alone,
    in_doubt,
    judge,
    named_figures,
    oldest_user,
)
from trainer.gate_texts import TextFigures
from trainer.types import PreferencePair, ResponseTokens

BOUNDS = GateConfig()
BASE_TEXTS = TextFigures(mean_tokens=40, nll_nats=1.0, repetition=0.1, empty=0, texts=6)
SUITED = RoundPair(
    3,
    parent_nats=0.5,
    own_nats=0.4,
    unlearnt_nats=0.6,
    chosen_logp_change=0.1,
    end_logp_change=0.5,
)
HEALTHY = GateFigures(
    nonfinite=(),
    altered=(),
    held_out=(),
    oldest_user=None,
    round_pairs=(SUITED,),
    base_texts=BASE_TEXTS,
    texts={"generic": BASE_TEXTS, "user 3": replace(BASE_TEXTS, mean_tokens=20)},
    more_texts={},
    parent_texts={},
    drift_nats={"generic": 0.1, "user 3": 0.2},
)


def with_text(**changes: Any) -> GateFigures:
    return replace(HEALTHY, texts={"user 3": replace(BASE_TEXTS, **changes)})


def rises(*changes: float, user: int = 1) -> tuple[HeldOutPair, ...]:
    return tuple(HeldOutPair(user, 0.7, 0.7 + change, None) for change in changes)


def test_a_healthy_round_passes_and_says_it_had_no_held_out_pairs() -> None:
    assert judge(HEALTHY, BOUNDS) == ()
    assert named_figures(HEALTHY)["held_out_pairs"] == 0


def test_whoever_alone_writes_unsound_texts_is_named() -> None:
    repeating = replace(BASE_TEXTS, repetition=0.9)
    assert ill_alone(HEALTHY, BOUNDS) == ()
    texts = {**HEALTHY.texts, "user 3": repeating, "user 5": repeating}
    assert ill_alone(replace(HEALTHY, texts=texts), BOUNDS) == ("user 3", "user 5")
    drifted = replace(HEALTHY, drift_nats={"user 3": 9.0})
    assert ill_alone(drifted, BOUNDS) == ("user 3",)
    unlike = replace(
        HEALTHY,
        more_texts={"user 3": replace(BASE_TEXTS, nll_nats=1.7, texts=12)},
        parent_texts={"user 3": replace(BASE_TEXTS, texts=18)},
    )
    assert ill_alone(unlike, BOUNDS) == ("user 3",)
    generic = {"generic": repeating, "user 3": repeating}
    assert ill_alone(replace(HEALTHY, texts=generic), BOUNDS) == ()
    assert ill_alone(replace(with_text(repetition=0.9), altered=(4,)), BOUNDS) == ()


def test_numbers_that_are_not_finite_refuse() -> None:
    (reason,) = judge(replace(HEALTHY, nonfinite=("adapter.x", "generic")), BOUNDS)
    assert reason == "2 tensors hold numbers that are not finite, first adapter.x"


def test_users_who_did_not_take_part_must_be_what_they_were() -> None:
    (reason,) = judge(replace(HEALTHY, altered=(4, 9)), BOUNDS)
    assert reason == "users who did not take part have been changed or lost: 4, 9"


def own_over_unlearnt(*rises: float, user: int = 3) -> tuple[RoundPair, ...]:
    return tuple(
        replace(SUITED, user_id=user, parent_nats=9.0, own_nats=0.7 + rise, unlearnt_nats=0.7)
        for rise in rises
    )


@pytest.mark.parametrize(
    ("rises", "passes"),
    [
        ((0.0, 0.0, 0.0), True),
        ((0.3, -0.26, 0.0), True),
        ((0.3, -0.22, 0.0), False),
        ((math.nan, 0.0, 0.0), False),
    ],
)
def test_what_was_learnt_must_suit_its_user_no_worse_than_nothing(
    rises: tuple[float, ...], passes: bool
) -> None:
    reasons = judge(replace(HEALTHY, round_pairs=own_over_unlearnt(*rises)), BOUNDS)
    assert (reasons == ()) is passes
    assert passes or reasons[0].startswith("user 3: what was learnt suits worse than nothing")


def test_each_user_of_the_round_is_asked_alone_whether_it_suits() -> None:
    pairs = own_over_unlearnt(*[-0.5] * 9) + own_over_unlearnt(0.3, 0.3, 0.3, user=5)
    (reason,) = judge(replace(HEALTHY, round_pairs=pairs), BOUNDS)
    assert reason.startswith("user 5: what was learnt suits worse than nothing, loss +0.30 nats")


def test_users_with_few_pairs_are_asked_together() -> None:
    few = own_over_unlearnt(0.3, 0.3) + own_over_unlearnt(-0.4, -0.4, user=5)
    assert judge(replace(HEALTHY, round_pairs=few), BOUNDS) == ()
    (reason,) = judge(replace(HEALTHY, round_pairs=few[:2]), BOUNDS)
    assert reason.startswith("all users together: what was learnt suits worse than nothing")
    many = own_over_unlearnt(-0.4, -0.4, -0.4, user=5)
    (reason,) = judge(replace(HEALTHY, round_pairs=(*many, *few[:1])), BOUNDS) or ("",)
    assert reason == ""  # one pair tells little
    rest = own_over_unlearnt(0.3, 0.3, user=6)
    (reason,) = judge(replace(HEALTHY, round_pairs=(*many, *few[:2], *rest)), BOUNDS)
    assert reason.startswith("the other users together: what was learnt suits worse than nothing")


@pytest.mark.parametrize(
    ("rise", "passes"),
    [
        (BOUNDS.max_own_over_parent_nats - 0.01, True),
        (BOUNDS.max_own_over_parent_nats + 0.01, False),
        (math.nan, False),
    ],
)
def test_what_a_user_learnt_from_must_suit_no_worse_than_before(rise: float, passes: bool) -> None:
    own = [replace(SUITED, parent_nats=0.4 - rise + change) for change in (-0.2, 0.0, 0.2)]
    elsewhere = [replace(SUITED, user_id=5, parent_nats=9.0)] * 3
    reasons = judge(replace(HEALTHY, round_pairs=(*own, *elsewhere)), BOUNDS)
    assert (reasons == ()) is passes
    assert passes or reasons[0].startswith("user 3: what it learnt from suits worse than before")


_END = BOUNDS.max_end_logp_drop_nats


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ((-_END - 0.1, None, -_END - 0.1, 0.3 - _END), True),
        ((-_END - 0.1, None, -_END - 0.1, 0.1 - _END), False),
        ((-9.0, None, -9.0, None), True),  # two alone do not say that none ends
        ((math.nan, 0.0, 0.0), False),
        ((None, None, None), True),
        ((3.0, 3.0, 3.0), True),
    ],
)
def test_responses_must_go_on_to_end(changes: tuple[float | None, ...], passes: bool) -> None:
    pairs = tuple(replace(SUITED, end_logp_change=change) for change in changes)
    reasons = judge(replace(HEALTHY, round_pairs=pairs), BOUNDS)
    assert (reasons == ()) is passes
    assert passes or reasons[0].startswith("responses no longer end")


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ((-1.9, None, -2.05), True),
        ((-1.9, None, -2.15), False),
        ((math.nan, 0.0), False),
        ((None, None), True),
        ((5.0,), True),
    ],
)
def test_nobodys_held_out_responses_may_cease_to_end(
    changes: tuple[float | None, ...], passes: bool
) -> None:
    held_out = tuple(HeldOutPair(4, 0.7, 0.6, change) for change in changes)
    elsewhere = HeldOutPair(5, 0.7, 0.6, 9.0)  # what others gain makes up for nothing
    reasons = judge(replace(HEALTHY, held_out=(*held_out, elsewhere)), BOUNDS)
    assert (reasons == ()) is passes
    assert passes or reasons[0].startswith("user 4: responses no longer end")


@pytest.mark.parametrize(
    ("drift", "passes"),
    [
        (BOUNDS.max_drift_nats - 0.01, True),
        (BOUNDS.max_drift_nats + 0.01, False),
        (math.nan, False),
    ],
)
def test_the_base_models_own_texts_must_stay_likely(drift: float, passes: bool) -> None:
    reasons = judge(replace(HEALTHY, drift_nats={"generic": 0.0, "user 3": drift}), BOUNDS)
    assert (reasons == ()) is passes
    assert passes or reasons[0].startswith("user 3: the base model's own texts are")


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        # allowed: 0.1 + 2 · 0.5 / √n, the spread of equal rises being 0
        ((1.05,), True),
        ((1.15,), False),
        ((0.55,) * 4, True),
        ((0.65,) * 4, False),
        ((0.15,) * 400, True),
        ((0.16,) * 400, False),
        ((-2.0,) * 4, True),
        # allowed: 0.1 + 2 · 2 / √4 = 2.1; a wide spread tells little
        ((0.0, 0.0, 3.464, 3.464), True),
        ((math.nan,), False),
    ],
)
def test_held_out_loss(changes: tuple[float, ...], passes: bool) -> None:
    reasons = judge(replace(HEALTHY, held_out=rises(*changes)), BOUNDS)
    assert (reasons == ()) is passes
    assert passes or reasons[0].startswith("held-out pairs are worse than before")


def test_the_worst_off_user_is_judged_alone() -> None:
    held_out = rises(*[-0.5] * 20) + rises(*[0.9] * 4, user=2)
    (reason,) = judge(replace(HEALTHY, held_out=held_out), BOUNDS)
    assert reason.startswith("the worst-off user's (2) held-out pairs are worse")
    assert "over 4 pairs" in reason


def test_the_oldest_user_is_judged_alone() -> None:
    held_out = rises(*[-0.5] * 40) + rises(*[0.9] * 4, user=2) + rises(*[1.0] * 4, user=3)
    reasons = judge(replace(HEALTHY, held_out=held_out, oldest_user=2), BOUNDS)
    assert [reason.split(" held-out")[0] for reason in reasons] == [
        "the worst-off user's (3)",
        "the oldest user's (2)",
    ]


def test_a_user_with_few_held_out_pairs_is_not_judged_alone() -> None:
    held_out = rises(*[-0.5] * 20) + rises(*[0.9] * 3, user=2)
    assert judge(replace(HEALTHY, held_out=held_out, oldest_user=2), BOUNDS) == ()


@pytest.mark.parametrize(
    ("change", "passes"), [(-0.99, True), (-1.01, False), (math.nan, False), (5.0, True)]
)
def test_chosen_responses_must_stay_probable(change: float, passes: bool) -> None:
    pairs = (replace(SUITED, chosen_logp_change=change),)
    reasons = judge(replace(HEALTHY, round_pairs=pairs), BOUNDS)
    assert (reasons == ()) is passes
    assert passes or "chosen responses have become improbable" in reasons[0]


@pytest.mark.parametrize(
    ("nll", "passes"), [(2.20, True), (2.21, False), (0.2, True), (math.nan, False)]
)
def test_texts_must_be_likely_under_the_base_model(nll: float, passes: bool) -> None:
    # allowed rise: 0.8 + 2 · 0.35 · √(1/6 + 1/6) = 1.204
    reasons = judge(with_text(nll_nats=nll), BOUNDS)
    assert (reasons == ()) is passes
    assert passes or reasons[0].startswith("user 3: generated texts are unlike language")


@pytest.mark.parametrize(("nll", "doubtful"), [(1.50, False), (1.51, True), (0.2, False)])
def test_unlikely_texts_bring_doubt(nll: float, doubtful: bool) -> None:
    # allowed rise: 0.1 + 2 · 0.35 · √(1/6 + 1/6) = 0.504
    assert in_doubt(with_text(nll_nats=nll), BOUNDS) == (("user 3",) if doubtful else ())


@pytest.mark.parametrize(
    ("before", "more", "passes"),
    [
        (1.46, 1.7, True),  # 6 texts at 1.8 and 12 at 1.7 are 1.733; allowed: 0.05 + 0.7 · √(2/18)
        (1.44, 1.7, False),
        (1.44, 1.6, True),
        (math.nan, 1.7, False),
        (1.46, math.nan, False),
    ],
)
def test_a_round_may_not_make_texts_much_less_likely_than_they_were(
    before: float, more: float, passes: bool
) -> None:
    figures = replace(
        with_text(nll_nats=1.8),
        more_texts={"user 3": replace(BASE_TEXTS, nll_nats=more, texts=12)},
        parent_texts={"user 3": replace(BASE_TEXTS, nll_nats=before, texts=18)},
    )
    reasons = judge(figures, BOUNDS)
    assert (reasons == ()) is passes
    assert passes or reasons[0].startswith("user 3: the round makes generated texts unlike")


def test_who_is_refused_anyhow_is_not_in_doubt() -> None:
    assert in_doubt(with_text(nll_nats=5.0), BOUNDS) == ()
    assert in_doubt(replace(with_text(nll_nats=5.0), base_texts=None), BOUNDS) == ()


@pytest.mark.parametrize(
    ("tokens", "passes"), [(6.1, True), (5.9, False), (119.0, True), (121.0, False)]
)
def test_texts_must_be_of_comparable_length(tokens: float, passes: bool) -> None:
    reasons = judge(with_text(mean_tokens=tokens), BOUNDS)
    assert (reasons == ()) is passes
    assert passes or "tokens on average" in reasons[0]


@pytest.mark.parametrize(("share", "passes"), [(0.3, True), (0.31, False)])
def test_texts_must_not_repeat(share: float, passes: bool) -> None:
    reasons = judge(with_text(repetition=share), BOUNDS)
    assert (reasons == ()) is passes
    assert passes or reasons[0] == "user 3: 31% of the generated 4-grams are repeated"


def test_a_base_model_that_repeats_itself_moves_the_bound() -> None:
    figures = replace(with_text(repetition=0.6), base_texts=replace(BASE_TEXTS, repetition=0.7))
    assert judge(figures, BOUNDS) == ()


def test_an_empty_text_refuses() -> None:
    assert judge(with_text(empty=1), BOUNDS) == ("user 3: 1 of the generated texts are empty",)


def test_the_generic_user_is_judged_like_everybody() -> None:
    texts = {"generic": replace(BASE_TEXTS, nll_nats=3.0)}
    (reason,) = judge(replace(HEALTHY, texts=texts), BOUNDS)
    assert reason.startswith("the generic user: generated texts are unlike language")


def test_named_figures_are_flat_and_finite() -> None:
    figures = replace(
        HEALTHY,
        held_out=rises(0.1, 0.3),
        texts={"user 3": replace(BASE_TEXTS, nll_nats=math.nan)},
    )
    named = named_figures(figures)
    assert named["held_out_pairs"] == 2
    assert named["held_out_loss_parent"] == pytest.approx(0.7)
    assert named["held_out_loss"] == pytest.approx(0.9)
    assert named["user_3_tokens"] == 40
    assert named["base_nll_nats"] == 1.0
    assert named["round_loss"] == pytest.approx(0.4)
    assert named["round_loss_parent"] == pytest.approx(0.5)
    assert named["round_loss_unlearnt"] == pytest.approx(0.6)
    assert named["user_3_drift_nats"] == 0.2
    assert named["end_logp_change"] == 0.5
    assert "user_3_nll_nats" not in named
    assert all(math.isfinite(value) for value in named.values())


def test_the_oldest_user_is_the_one_whose_newest_pair_is_lowest() -> None:
    def pair(pair_id: int, user_id: int) -> PreferencePair:
        response = ResponseTokens(1, (2,))
        return PreferencePair(pair_id, user_id, (), response, response)

    pairs = [pair(1, 10), pair(9, 10), pair(5, 20), pair(4, 20), pair(7, 30)]
    assert oldest_user(pairs) == 20
    assert oldest_user([]) is None
