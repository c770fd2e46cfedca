"""Rounds that train less than everything, or by another loss."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.conftest import DIRECTIONS, IDENTITY, opposed_pairs
from tests.trainer.rounds import KINDS, epoch_means, recipe_of, run
from tests.trainer.test_user_models import OWN
from trainer import artifacts
from trainer.artifacts import load_version
from trainer.config import GateConfig, Loss, TrainConfig
from trainer.gate import GateFigures, named_figures
from trainer.language_model import LanguageModel
from trainer.types import RoundFailed, RoundKind, RoundRequest, StyleShares

Request = Callable[..., RoundRequest]


@pytest.fixture(params=KINDS)
def recipe(request: pytest.FixtureRequest) -> TrainConfig:
    """Every round here is run with every user model."""
    return recipe_of(request.param)


def test_a_vector_round_changes_nothing_but_its_own_users_by_one_bit(
    base: LanguageModel, recipe: TrainConfig, round_request: Request, initial: Path, tokenizer
) -> None:
    first = Path(run(base, round_request(pairs=opposed_pairs(tokenizer, users=(1, 2)))).artifact)
    path = initial.parent / "fast"
    newcomer = tuple(p for p in opposed_pairs(tokenizer, users=(8, 9)) if p.user_id == 8)
    result = run(
        base,
        round_request(
            round_id=2,
            kind="vector",
            pairs=newcomer,
            held_out=opposed_pairs(tokenizer, users=(8, 9))[:1],
            parent=str(first),
            output=str(path),
        ),
    )
    name = artifacts.ADAPTER_WEIGHTS
    assert (first / name).read_bytes() == (path / name).read_bytes()
    before, after = (load_version(p, base_identity=IDENTITY).vectors for p in (first, path))
    assert torch.equal(before.generic, after.generic)
    for known in (1, 2):
        assert torch.equal(before.vector(known), after.vector(known))
    assert set(after.personal) == {1, 2, 8}
    assert not torch.equal(after.vector(8), after.generic)
    states = [load_file(p / artifacts.TRAINER_STATE) for p in (first, path)]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key])
    assert {key.split("/")[1] for key in states[1].keys() - states[0].keys()} == {"user.8"}
    # Four pairs are one step; the user's own term alone is computed, and only they are probed.
    assert len(result.curve) == recipe.vector_epochs
    assert result.curve[-1]["loss"] < result.curve[0]["loss"]
    assert "accuracy_generic" not in result.curve[0]
    assert {s["user_id"] for s in result.gate.samples if s["condition"] != "base"} == {8}
    assert result.gate.figures["held_out_pairs"] == 1
    assert load_version(path, base_identity=IDENTITY).config == recipe


def test_what_is_shared_may_join_in_after_the_vectors(
    base: LanguageModel, recipe: TrainConfig, round_request: Request, initial: Path
) -> None:
    result = run(base, round_request(config=replace(recipe, own_epochs=3)))
    path = Path(result.artifact)
    parts = [load_file(p / artifacts.ADAPTER_WEIGHTS) for p in (initial, path)]
    assert all(torch.equal(parts[0][name], parts[1][name]) for name in parts[0])
    assert not any(k.startswith("adapter/") for k in load_file(path / artifacts.TRAINER_STATE))
    vectors = [load_version(p, base_identity=IDENTITY).vectors for p in (initial, path)]
    assert torch.equal(vectors[0].generic, vectors[1].generic)
    assert not any(torch.equal(v, vectors[1].generic) for v in vectors[1].personal.values())
    assert not any("accuracy_generic" in step for step in result.curve)

    late = initial.parent / "late"
    result = run(base, round_request(config=replace(recipe, own_epochs=2), output=str(late)))
    steps = {
        float(v)
        for k, v in load_file(late / artifacts.TRAINER_STATE).items()
        if k.endswith("/step") and k.startswith("adapter/")
    }
    assert steps == {2.0}  # 8 pairs / 4 in the last of 3 epochs
    assert ["accuracy_generic" in step for step in result.curve] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("loss", ["ipo", "robust", "hinge"])
def test_a_round_runs_with_every_loss(
    base: LanguageModel, recipe: TrainConfig, round_request: Request, loss: Loss
) -> None:
    config = replace(recipe, loss=loss, average_logps=loss == "ipo")
    result = run(base, round_request(config=config))
    losses = epoch_means(result, "loss")
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["full", "vector"])
def test_a_round_learns_with_the_profile_that_was_served(
    base: LanguageModel, round_request: Request, initial: Path, tokenizer, kind: RoundKind
) -> None:
    pairs = opposed_pairs(tokenizer)
    written = tuple(replace(p, profile="I like it short.") if p.user_id == 1 else p for p in pairs)
    plain = run(base, round_request(kind=kind, pairs=pairs))
    folder = initial.parent / "told"
    told = run(base, round_request(kind=kind, pairs=written, output=str(folder)))
    # The base model reads no profile; the personal term does.
    assert plain.reference_logps_nats == told.reference_logps_nats
    if round_request().config.user_model == "styled":  # and so does its reference
        assert told.curve[0]["margin_nats"] == pytest.approx(0, abs=1e-4)
    else:
        assert abs(plain.curve[0]["margin_nats"] - told.curve[0]["margin_nats"]) > 1e-3
    generic = [result.curve[0].get("accuracy_generic") for result in (plain, told)]
    assert generic[0] == generic[1]
    assert (generic[0] is None) == (kind == "vector")
    losses = epoch_means(told, "loss")
    assert losses[-1] < losses[0]
    # Another vector is learnt beside the words than without them.
    paths = (Path(plain.artifact), folder)
    without, beside = (load_version(p, base_identity=IDENTITY).vectors.vector(1) for p in paths)
    assert not torch.allclose(without, beside)


def mostly(style: int) -> StyleShares:
    """Nearly all of one of the six styles, some of the last."""
    return tuple(0.9 if nth == style else 0.15 * (nth == 5) for nth in range(6))


@pytest.mark.parametrize("kind", ["full", "vector"])
def test_style_shares_move_their_user_where_learning_does_not(
    base: LanguageModel, round_request: Request, initial: Path, recipe: TrainConfig, kind: RoundKind
) -> None:
    still = replace(
        recipe,
        learning_rate_vector=1e-30,
        learning_rate_weights=1e-30,
        learning_rate_adapter=1e-30,
    )
    shares = {1: mostly(2)}
    result = run(base, round_request(config=still, kind=kind, style_shares=shares))
    before = load_version(initial, base_identity=IDENTITY).vectors
    after = load_version(Path(result.artifact), base_identity=IDENTITY).vectors
    near = partial(torch.allclose, atol=1e-6)
    assert near(after.vector(2), before.generic)  # learns too, but has no shares
    if recipe.user_model != "styled":  # others have no use for shares
        assert near(after.vector(1), before.generic)
        return
    # What choices say of styles is no margin, neither to the steps nor to the gate.
    assert all(abs(step["margin_nats"]) < 1e-4 for step in result.curve)
    for name in ("round_loss", "round_loss_parent", "round_loss_unlearnt"):
        assert result.gate.figures[name] == pytest.approx(math.log(2), abs=1e-4)
    expected = before.generic + 0.9 * DIRECTIONS[2] + 0.15 * DIRECTIONS[5]
    assert near(after.vector(1), expected)
    kept_shares = load_file(Path(result.artifact) / artifacts.USER_VECTORS)["shares"]
    assert kept_shares.tolist() == [pytest.approx(mostly(2)), [0.0] * 6]
    later = round_request(
        round_id=2,
        config=still,
        kind=kind,
        parent=result.artifact,
        output=str(initial.parent / "2"),
    )
    kept = load_version(Path(run(base, later).artifact), base_identity=IDENTITY).vectors
    assert near(kept.vector(1), expected)  # as the parent had it


def test_style_shares_that_do_not_fit_fail_the_round(
    base: LanguageModel, round_request: Request, initial: Path, recipe: TrainConfig
) -> None:
    with pytest.raises(RoundFailed, match=r"users who do not learn in this round: \[9\]"):
        run(base, round_request(style_shares={1: mostly(1), 9: mostly(1)}))
    if recipe.user_model == "styled":
        for wrong in (mostly(1)[:5], (*mostly(1), 0.0), ()):
            with pytest.raises(RoundFailed, match="the styles have changed"):
                run(base, round_request(style_shares={1: wrong}))
    assert list(initial.parent.iterdir()) == [initial]


def test_a_request_crosses_as_json_with_its_style_shares(round_request: Request) -> None:
    request = round_request(style_shares={1: mostly(2), 40: (0.0, 1.2)})
    data = json.loads(json.dumps(request.to_json()))
    assert RoundRequest.from_json(data) == request
    whole = RoundRequest.from_json(data | {"style_shares": {"40": [1, 0]}})
    assert whole.style_shares == {40: (1.0, 0.0)}
    not_numbers = (["1"], [[1]], [None], [True, 0], [float("nan")], [float("inf")], {"0": 1}, "12")
    for wrong in (*not_numbers, None, 7):
        with pytest.raises(ValueError, match="style shares of user 40 must be numbers"):
            RoundRequest.from_json(data | {"style_shares": {"40": wrong}})


def test_what_suits_its_user_worse_than_nothing_is_unlearnt_and_the_rest_goes_live(
    base: LanguageModel, recipe: TrainConfig, round_request: Request, initial: Path, tokenizer
) -> None:
    """User 2 chooses the other way round now; a few slow steps do not teach that."""
    pairs = opposed_pairs(tokenizer)
    reversed_ones = tuple(
        replace(pair, chosen=pair.rejected, rejected=pair.chosen) if pair.user_id == 2 else pair
        for pair in pairs
    )
    first = run(base, round_request(pairs=pairs, config=replace(recipe, epochs=8)))
    slow = replace(
        recipe,
        epochs=1,
        learning_rate_adapter=1e-6,
        learning_rate_vector=1e-6,
        learning_rate_weights=1e-6,
    )
    output = initial.parent / "round-2"
    second = run(
        base,
        round_request(
            round_id=2,
            pairs=reversed_ones,
            parent=first.artifact,
            output=str(output),
            config=slow,
        ),
    )
    assert second.gate.figures["users_unlearnt"] == 1
    assert not [reason for reason in second.gate.reasons if "worse" in reason]
    own = load_file(output / artifacts.USER_VECTORS)[OWN[recipe.user_model]]
    assert own[0].any()
    assert not own[1].any()
    state = load_file(output / artifacts.TRAINER_STATE)
    assert not [name for name in state if name.startswith("vectors/user.2/")]


def test_for_whom_alone_writes_unsound_texts_the_round_is_taken_back(
    base: LanguageModel,
    recipe: TrainConfig,
    round_request: Request,
    initial: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = run(base, round_request(config=recipe))
    measured: list[GateFigures] = []

    def ill_at_first(figures: GateFigures, _config: GateConfig) -> tuple[str, ...]:
        measured.append(figures)
        return ("user 2",) if len(measured) == 1 else ()

    monkeypatch.setattr("trainer.round.ill_alone", ill_at_first)
    output = initial.parent / "round-2"
    second = run(
        base,
        round_request(round_id=2, parent=first.artifact, output=str(output), config=recipe),
    )
    assert ["user 2" in figures.texts for figures in measured] == [True, False]
    assert second.gate.figures["users_taken_back"] == 1
    assert second.gate.figures["round_loss"] != named_figures(measured[0])["round_loss"]
    old, new = (
        load_file(Path(artifact) / artifacts.USER_VECTORS)[OWN[recipe.user_model]]
        for artifact in (first.artifact, second.artifact)
    )
    assert not torch.equal(old[0], new[0])
    assert torch.equal(old[1], new[1])
    old_state, new_state = (
        load_file(Path(artifact) / artifacts.TRAINER_STATE)
        for artifact in (first.artifact, second.artifact)
    )
    mine = [name for name in old_state if name.startswith("vectors/user.2/")]
    assert mine
    for name in mine:
        assert torch.equal(old_state[name], new_state[name])


@pytest.mark.parametrize("ill", [("user 2", "user 99"), ("user 1", "user 2")])
def test_nothing_is_taken_back_for_who_did_not_take_part_or_if_nothing_would_be_left(
    base: LanguageModel,
    recipe: TrainConfig,
    round_request: Request,
    monkeypatch: pytest.MonkeyPatch,
    ill: tuple[str, ...],
) -> None:
    monkeypatch.setattr("trainer.round.ill_alone", lambda *_: ill)
    done = run(base, round_request(config=recipe))
    assert done.gate.figures["users_taken_back"] == 0
