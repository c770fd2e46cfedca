"""The learning benchmark whole, on a random two-layer model: every method, figure and page."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.styles import draw_styles, load_styles, with_directions
from backend.taste_model import STRANGER
from benchmarks.learning_arms import as_everybody, train, untrained
from benchmarks.learning_judge import winrate
from benchmarks.learning_records import ChoiceRecords
from benchmarks.learning_report import goals, prequential, read_trials, report
from benchmarks.learning_state import Plan, State
from benchmarks.learning_trial import Trial
from benchmarks.learning_world import World, Written, preference, questions
from benchmarks.sections import put_between
from tests.trainer.conftest import CONFIG, base, tokenizer  # noqa: F401 - fixtures
from trainer.language_model import LanguageModel
from trainer.probes import ProbeText
from trainer.prompting import PromptFormat

PLAN = Plan(
    rules=("shorter", "longer"),
    per_round=2,
    rounds=2,
    checkpoints=(2, 4),
    replay=0.5,
    shared=0.5,
    varied=1.0,
    own_adapters=True,
    drafts=3,
    rounds_of_others=2,
    seed=3,
)


@pytest.fixture(params=[False, True], ids=["all", "vectors only"])
def trial(base: LanguageModel, request: pytest.FixtureRequest) -> dict[str, Any]:  # noqa: F811
    world = World(base, PromptFormat(base.tokenizer, CONFIG.prefix_tokens), 12, 1024)
    asked = questions(tuning=True, held_out=2, seed=3)
    config = replace(CONFIG, epochs=1, own_epochs=int(request.param))
    results = Trial(world, PLAN, asked, config, say=lambda _message: None).run()
    return {
        "machine": "a test",
        "plan": asdict(PLAN),
        "held_out": 2,
        "new_tokens": 12,
        "questions": asked.held_out,
        "seconds": 60.0,
        **asdict(results),
    }


def test_a_trial_scores_before_it_trains_and_judges_at_its_checkpoints(
    trial: dict[str, Any], tmp_path: Path
) -> None:
    choices = trial["choices"]
    assert {choice["user"] for choice in choices} == {1, 2}
    # Before the first round nobody has a vector: personal, generic and another's are one thing.
    for choice in choices:
        if choice["nth"] <= PLAN.per_round:
            assert choice["personal"] == choice["generic"] == choice["wrong"] == choice["pooled"]
    later = [choice for choice in choices if choice["nth"] > PLAN.per_round]
    assert later
    assert all(choice["personal"] != choice["wrong"] for choice in later)
    assert all(choice["own"] != choice["pooled"] for choice in later)
    assert set(trial["judged"]) == {"2", "4"}
    assert set(trial["train_s"]) == {"personal", "pooled", "own"}
    assert all(len(seconds) == PLAN.rounds for seconds in trial["train_s"].values())

    assert set(trial["oldest_user"]) == {"before", "after"}
    found = goals([trial])
    assert found["winrate_personal_vs_generic_at_20"] is None  # it was never judged at 20
    assert found["logprob_per_token_drop"] is not None
    assert found["collapsed_texts_one_draft"] is not None
    (tmp_path / "learning-tiny-3.json").write_text(json.dumps(trial))
    document = tmp_path / "RESULTS.md"
    document.write_text("# Results\n")
    trials = read_trials(tmp_path, "tiny")
    section = report(trials, "Tiny", "make bench-tiny", tmp_path / "figures", "tiny")
    put_between(document, "learning tiny", section)
    put_between(document, "learning tiny", section)
    text = document.read_text()
    assert text.count("### Tiny") == 1
    assert "| `collapsed_texts_one_draft` |" in text
    assert "the best of 3 drafts" in text
    assert text.startswith("# Results\n")
    for name in ("prequential", "winrates"):
        assert (tmp_path / "figures" / f"learning-tiny-{name}.png").stat().st_size > 1000


def health(*, empty: int = 0, loops: int = 0, nll_each: Sequence[float] = ()) -> dict[str, Any]:
    texts = {"empty": empty, "loops": loops, "nll_each": nll_each}
    return texts | {"repetition": 0.1, "nll_nats": 1.5}


def test_collapsed_texts_are_counted_of_best_drafts_and_of_first_drafts() -> None:
    last = {
        "base": health(loops=1),
        "user 1": health(empty=1),
        "user 2": health(nll_each=(1.0, 3.6)),
        "one draft user 1": health(empty=2, loops=1),
        "one draft user 2": health(nll_each=(3.6, 3.4)),
        "one draft pooled": health(empty=7),
        "generic": health(empty=7),
    }
    trial = {
        "plan": {"per_round": 5},
        "choices": [],
        "train_s": {"personal": [1.0]},
        "judged": {
            "20": {"health": {"base": health(empty=5), "user 1": health(empty=5)}},
            "40": {"health": last},
        },
    }
    found = goals([trial, trial])
    assert found["collapsed_texts"] == 4
    assert found["collapsed_texts_one_draft"] == 8
    assert found["collapsed_texts_of_base"] == 2
    alone = {name: one for name, one in last.items() if not name.startswith("one draft")}
    assert (
        goals([trial | {"judged": {"40": {"health": alone}}}])["collapsed_texts_one_draft"] is None
    )


def test_a_trial_goes_on_where_it_stood(base: LanguageModel) -> None:  # noqa: F811
    world = World(base, PromptFormat(base.tokenizer, CONFIG.prefix_tokens), 12, 1024)
    asked = questions(tuning=True, held_out=2, seed=3)
    states: list[bytes] = []

    def trial(state: State | None = None) -> Trial:
        config = replace(CONFIG, epochs=1)
        return Trial(world, PLAN, asked, config, say=lambda _message: None, state=state)

    whole = trial().run(lambda state: states.append(pickle.dumps(state)))
    continued = trial(pickle.loads(states[0])).run()
    assert pickle.loads(states[0]).rounds == 1
    assert (continued.choices, continued.judged) == (whole.choices, whole.judged)


@pytest.mark.parametrize("everybody", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_what_is_to_rest_rests_bit_for_bit(
    base: LanguageModel,  # noqa: F811
    alone: bool,
    everybody: bool,
) -> None:
    world = World(base, PromptFormat(base.tokenizer, CONFIG.prefix_tokens), 12, 1024)
    pair = preference(
        1, 7, "Why?", (Written((5, 2), "One."), Written((5, 6), "One two.")), "longer"
    )
    assert pair is not None
    rows = [world.rows(pair)]
    before = untrained(base, CONFIG)
    config = replace(CONFIG, own_epochs=CONFIG.epochs if alone else 0)
    references = world.references(rows)
    judged = as_everybody(rows) if everybody else rows
    after, seconds = train(base, before, judged, references, config, seed="s")
    assert seconds > 0
    assert after.users["user_ids"].tolist() == [1 if everybody else 7]
    assert _same(before.users["generic"], after.users["generic"]) is alone
    assert all(_same(before.adapter[k], after.adapter[k]) for k in before.adapter) is alone


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def test_a_persona_without_a_preference_makes_no_pair() -> None:
    short, long = Written((5, 2), "One two."), Written((5, 6, 7), "One two three.")
    pair = preference(4, 1, "Why?", (long, short), "shorter")
    assert pair is not None
    assert pair.chosen.token_ids == short.token_ids
    assert preference(4, 1, "Why?", (long, short), "lists") is None
    assert preference(4, 1, "Why?", (Written((), ""), short), "longer") is None


def test_win_rates_count_ties_half() -> None:
    mine = [ProbeText((1,), text, 0.0) for text in ("a", "a b", "a b c")]
    others = [ProbeText((1,), text, 0.0) for text in ("a b", "a b", "a b")]
    assert winrate("shorter", mine, others) == pytest.approx(0.5)
    assert winrate("longer", mine[1:], others[1:]) == pytest.approx(0.75)


def test_a_margin_of_nothing_counts_half() -> None:
    choices = [{"nth": n, "personal": margin} for n, margin in enumerate((0.0, 2.0, -1.0, 3.0), 1)]
    share, low, high, count = prequential([{"choices": choices}], "personal", 0, 4)
    assert (share, count) == (2.5 / 4, 4)
    assert low < 2.5 / 4 < high
    assert prequential([{"choices": choices}], "personal", 1, 3)[0] == 0.5
    assert prequential([{"choices": choices}], "own", 0, 4)[0] is None


def test_earlier_choices_foresee_before_margins_do() -> None:
    def share(*, by_margin: bool = False, **said: float) -> float | None:
        trials = [{"choices": [{"nth": 1, "personal": -2.0, **said}]}]
        return prequential(trials, "personal", 0, 1, by_margin=by_margin)[0]

    assert share() == 0
    assert share(personal_taste=0.7) == 1
    assert share(personal_taste=0.7, by_margin=True) == 0
    assert share(personal_taste=0.0) == 0  # they say nothing: the margin speaks


def test_simulated_users_are_told_by_their_own_choices_and_pooled_by_all() -> None:
    records = ChoiceRecords(load_styles())
    assert records.said(1, "Yes.", "Yes, it is so.") == records.said_by_all("Yes.", "No, no.") == 0
    assert records.shares(1).tolist() == [0] * len(with_directions(load_styles()))
    for _ in range(3):
        records.remember(1, "Yes.", "Yes, it is so.")
        records.remember(2, "Yes, it is so.", "Yes.")
    assert records.said(1, "Yes.", "Yes, it is so.") > 0 > records.said(2, "Yes.", "Yes, it is so.")
    assert records.said(1, "Yes.", "Yes, it is so.") == -records.said(2, "Yes.", "Yes, it is so.")
    # Opposed tastes in equal number, taken for one person, leave nothing.
    assert records.said_by_all("Yes.", "Yes, it is so.") == pytest.approx(0, abs=1e-4)
    assert records.of(3).choices == 0
    assert (records.of(1).choices, records.of_all().choices) == (3, 6)
    assert records.shares(1).max() > 0
    drawn = records.draw(None, random.Random(3))
    assert drawn == draw_styles(load_styles(), STRANGER, random.Random(3))
    assert records.draw(9, random.Random(3)) == drawn


def test_styled_vectors_are_foreseen_by_choices_and_judged_without_offsets(
    base: LanguageModel,  # noqa: F811
) -> None:
    styles = len(with_directions(load_styles()))
    shape = (styles, CONFIG.prefix_tokens, base.model.config.hidden_size)
    directions = torch.randn(shape, generator=torch.Generator().manual_seed(8))
    prompts = PromptFormat(base.tokenizer, CONFIG.prefix_tokens)
    world = World(base, prompts, 12, 1024, directions)
    asked = questions(tuning=True, held_out=2, seed=3)
    config = replace(CONFIG, user_model="styled", epochs=1, own_epochs=1)
    plan = replace(PLAN, shared=0.0, own_adapters=False)
    results = Trial(world, plan, asked, config, say=lambda _message: None).run()
    firsts = [choice for choice in results.choices if choice["nth"] == 1]
    assert all(first["personal_taste"] == 0 for first in firsts)
    # Whose choice is the first of all hangs on who had no preference at first.
    assert any(first["wrong_taste"] == first["pooled_taste"] == 0 for first in firsts)
    assert any(choice["personal_taste"] for choice in results.choices)
    for rates in results.judged["4"]["winrates"].values():
        for name in ("styles vs generic", "one draft vs generic", "pooled one draft vs generic"):
            assert 0 <= rates[name] <= 1
    # Only others' own numbers learn in their rounds: the first user's texts stay what they were.
    assert results.oldest_user["before"] == results.oldest_user["after"]


def test_prompts_for_tuning_and_for_reports_never_meet() -> None:
    tuned, told = (
        questions(tuning=True, held_out=9, seed=1),
        questions(tuning=False, held_out=9, seed=1),
    )
    assert not {*tuned.training, *tuned.held_out} & {*told.training, *told.held_out}
    assert not set(told.training) & set(told.held_out)
    assert told.held_out != questions(tuning=False, held_out=9, seed=2).held_out
