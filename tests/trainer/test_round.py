from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.conftest import CONFIG, IDENTITY, opposed_pairs
from tests.trainer.test_user_models import OWN, SHARED
from trainer import artifacts
from trainer.artifacts import load_version, verify
from trainer.config import Loss, TrainConfig, UserModelKind
from trainer.language_model import LanguageModel
from trainer.probes import BaseTexts
from trainer.round import run_round, write_initial
from trainer.types import Phase, Progress, RoundFailed, RoundRequest, RoundResult
from trainer.user_models import initial_users

Request = Callable[..., RoundRequest]
TENSORS = (artifacts.ADAPTER_WEIGHTS, artifacts.USER_VECTORS, artifacts.TRAINER_STATE)


def run(base: LanguageModel, request: RoundRequest, seen: list[Progress] | None = None):
    reports: list[Progress] = [] if seen is None else seen
    return run_round(base, request, reports.append, BaseTexts())


@pytest.fixture(params=["individual", "cluster"])
def recipe(request: pytest.FixtureRequest) -> TrainConfig:
    """Every round here is run with both user models."""
    kind: UserModelKind = request.param
    return replace(CONFIG, user_model=kind, clusters=6, learning_rate_weights=0.5)


def epoch_means(result: RoundResult, name: str) -> list[float]:
    epochs = sorted({figures["epoch"] for figures in result.curve})
    return [
        sum(f[name] for f in result.curve if f["epoch"] == epoch)
        / sum(f["epoch"] == epoch for f in result.curve)
        for epoch in epochs
    ]


def test_the_initial_version_is_e0_from_words_and_an_adapter_without_effect(
    base: LanguageModel, recipe: TrainConfig, initial: Path
) -> None:
    version = load_version(initial, base_identity=IDENTITY)
    start = initial_users(base.model, base.tokenizer, recipe)
    assert torch.equal(version.vectors.generic, start.prefix(None))
    assert version.vectors.personal == {}
    assert all(not t.any() for name, t in version.adapter.items() if "lora_B" in name)
    assert version.config == recipe


def test_opposed_tastes_are_learned_and_the_round_passes(
    base: LanguageModel, recipe: TrainConfig, round_request: Request
) -> None:
    config = replace(recipe, epochs=8)
    result = run(base, round_request(config=config))
    loss, accuracy = epoch_means(result, "loss"), epoch_means(result, "accuracy")
    assert loss[-1] < loss[0] - 0.5
    assert accuracy[-1] > accuracy[0]
    assert accuracy[-1] >= 0.9
    # Nobody who does not know the user can do better than half here.
    assert epoch_means(result, "accuracy_generic")[-1] <= 0.75
    assert result.gate.passed, result.gate.reasons
    version = load_version(Path(result.artifact), base_identity=IDENTITY)
    assert set(version.vectors.personal) == {1, 2}


def test_progress_tells_every_phase_in_order(base: LanguageModel, round_request: Request) -> None:
    seen: list[Progress] = []
    result = run(base, round_request(), seen)
    phases = list(dict.fromkeys(progress.phase for progress in seen))
    assert phases == [Phase.REFERENCE, Phase.TRAIN, Phase.GATE, Phase.SAVE]
    steps = [progress for progress in seen if progress.phase is Phase.TRAIN]
    assert [progress.step for progress in steps] == list(range(1, 7))  # 8 pairs / 4 · 3 epochs
    assert tuple(progress.figures for progress in steps) == result.curve
    assert set(result.curve[0]) >= {
        "loss",
        "accuracy",
        "accuracy_generic",
        "margin_nats",
        "chosen_logp_change",
        "grad_norm",
        "s",
    }


def test_the_same_inputs_give_the_same_bytes(
    base: LanguageModel, recipe: TrainConfig, round_request: Request, initial: Path
) -> None:
    outputs = [initial.parent / "one", initial.parent / "two"]
    results = [run(base, round_request(output=str(output))) for output in outputs]
    for name in TENSORS:
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()
    assert results[0].gate == results[1].gate
    other = initial.parent / "other"
    run(base, round_request(output=str(other), config=replace(recipe, seed=9)))
    assert (outputs[0] / TENSORS[0]).read_bytes() != (other / TENSORS[0]).read_bytes()


def test_the_base_model_is_as_before_and_memory_does_not_grow(
    base: LanguageModel, round_request: Request, initial: Path
) -> None:
    weights = {name: p.clone() for name, p in base.model.named_parameters()}
    modules = [(name, id(module)) for name, module in base.model.named_modules()]
    texts = BaseTexts()

    def tensors_alive() -> int:
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    alive = []
    for index in range(3):
        request = round_request(output=str(initial.parent / f"r{index}"))
        run_round(base, request, lambda _: None, texts)
        alive.append(tensors_alive())
    assert alive[1] == alive[2]
    assert modules == [(name, id(module)) for name, module in base.model.named_modules()]
    assert all(torch.equal(weights[n], p) for n, p in base.model.named_parameters())
    assert not any(p.requires_grad or p.grad is not None for p in base.model.parameters())


def test_a_child_goes_on_from_its_parent(
    base: LanguageModel, recipe: TrainConfig, round_request: Request, initial: Path, tokenizer
) -> None:
    first = run(base, round_request(pairs=opposed_pairs(tokenizer, users=(1, 2))))
    second_path = initial.parent / "round-2"
    run(
        base,
        round_request(
            round_id=2,
            pairs=opposed_pairs(tokenizer, users=(2, 5)),
            parent=first.artifact,
            output=str(second_path),
        ),
    )
    states = [
        load_file(Path(path) / artifacts.TRAINER_STATE) for path in (first.artifact, second_path)
    ]
    vectors = [
        load_file(Path(path) / artifacts.USER_VECTORS) for path in (first.artifact, second_path)
    ]
    assert vectors[1]["user_ids"].tolist() == [1, 2, 5]
    # User 1 took no part: offset and optimizer state are the same bits.
    own = OWN[recipe.user_model]
    assert torch.equal(vectors[0][own][0], vectors[1][own][0])
    assert not torch.equal(vectors[0][own][1], vectors[1][own][1])
    for name in states[0]:
        if name.startswith("vectors/user.1/"):
            assert torch.equal(states[0][name], states[1][name])
    # What all share took part in every step of both rounds, user 5 only in the second's.
    shared = SHARED[recipe.user_model]
    assert [state[f"vectors/{shared}/step"].item() for state in states] == [6, 12]
    user_2 = [state["vectors/user.2/step"].item() for state in states]
    assert user_2[0] < user_2[1]
    assert states[1]["vectors/user.5/step"].item() <= 6


def test_reference_values_come_back_and_given_ones_are_used(
    base: LanguageModel, round_request: Request, initial: Path, tokenizer
) -> None:
    pairs = opposed_pairs(tokenizer)
    first = run(base, round_request(pairs=pairs))
    found = first.reference_logps_nats
    assert set(found) == {r.response_id for p in pairs for r in (p.chosen, p.rejected)}

    known = tuple(
        replace(
            p,
            chosen=replace(p.chosen, reference_logp_nats=found[p.chosen.response_id]),
            rejected=replace(p.rejected, reference_logp_nats=found[p.rejected.response_id]),
        )
        for p in pairs
    )
    seen: list[Progress] = []
    again = run(base, round_request(pairs=known, output=str(initial.parent / "again")), seen)
    assert again.reference_logps_nats == {}
    assert Phase.REFERENCE not in {progress.phase for progress in seen}
    for name in TENSORS:
        ours, theirs = Path(first.artifact) / name, Path(again.artifact) / name
        assert ours.read_bytes() == theirs.read_bytes()


def test_held_out_pairs_are_measured_and_never_trained_on(
    base: LanguageModel, round_request: Request, initial: Path, tokenizer
) -> None:
    held_out = opposed_pairs(tokenizer, users=(1, 7), prompts=5)[8:]
    result = run(base, round_request(held_out=held_out))
    plain = run(base, round_request(output=str(initial.parent / "plain")))
    assert result.gate.figures["held_out_pairs"] == 2
    assert result.gate.figures["held_out_loss"] != result.gate.figures["held_out_loss_parent"]
    for name in TENSORS:
        ours, theirs = Path(result.artifact) / name, Path(plain.artifact) / name
        assert ours.read_bytes() == theirs.read_bytes()
    assert set(result.reference_logps_nats) > set(plain.reference_logps_nats)


def test_a_refused_round_is_kept_with_its_reasons_and_samples(
    base: LanguageModel, recipe: TrainConfig, round_request: Request
) -> None:
    strict = replace(recipe, gate=replace(recipe.gate, max_nll_rise_nats=-100.0))
    result = run(base, round_request(config=strict))
    assert not result.gate.passed
    assert any("user 1: generated texts are unlike language" in r for r in result.gate.reasons)
    verify(Path(result.artifact))
    metrics = json.loads((Path(result.artifact) / artifacts.METRICS).read_text())
    assert tuple(metrics["gate"]["reasons"]) == result.gate.reasons
    assert tuple(metrics["curve"]) == result.curve
    who = {(s["condition"], s["user_id"]) for s in result.gate.samples}
    assert who == {("base", None), ("generic", None), ("personal", 1), ("personal", 2)}
    assert len(result.gate.samples) == 4 * 2
    assert RoundResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_training_that_explodes_fails_and_leaves_nothing(
    base: LanguageModel, recipe: TrainConfig, round_request: Request, initial: Path
) -> None:
    hot = replace(recipe, learning_rate_adapter=1e30, learning_rate_vector=1e30)
    modules = [id(module) for module in base.model.modules()]
    with pytest.raises(RoundFailed, match="infinite or undefined at step 2 of 6"):
        run(base, round_request(config=hot))
    assert [p.name for p in initial.parent.iterdir()] == ["initial"]
    assert modules == [id(module) for module in base.model.modules()]


def test_an_explosion_in_the_last_step_is_refused_by_the_gate(
    base: LanguageModel, recipe: TrainConfig, round_request: Request
) -> None:
    config = replace(
        recipe, epochs=1, batch_pairs=100, learning_rate_adapter=1e30, learning_rate_vector=1e30
    )
    result = run(base, round_request(config=config))
    assert not result.gate.passed
    assert any("chosen responses have become improbable" in r for r in result.gate.reasons)
    assert any("own texts are" in r for r in result.gate.reasons)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": ()}, "no pairs"),
        ({"parent": "/nowhere"}, "parent version is damaged"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(
    base: LanguageModel, round_request: Request, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(RoundFailed, match=message):
        run(base, round_request(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_rank": 8}, "lora_rank is 8, but the parent version was made with 4"),
        ({"prefix_tokens": 9}, "prefix_tokens is 9"),
        ({"user_model": "other"}, "user_model is other, .*: set it back, or begin with another"),
    ],
)
def test_settings_that_shape_a_version_cannot_change_later(
    base: LanguageModel,
    recipe: TrainConfig,
    round_request: Request,
    changes: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(RoundFailed, match=message):
        run(base, round_request(config=replace(recipe, **changes)))


def test_the_number_of_clusters_matters_to_the_cluster_model_only(
    base: LanguageModel, recipe: TrainConfig, round_request: Request
) -> None:
    request = round_request(config=replace(recipe, clusters=7))
    if recipe.user_model == "cluster":
        with pytest.raises(RoundFailed, match=r"clusters is 7, but the parent .* made with 6"):
            run(base, request)
    else:
        assert run(base, request).curve


def test_a_damaged_parent_is_refused(
    base: LanguageModel, round_request: Request, initial: Path
) -> None:
    path = initial / artifacts.USER_VECTORS
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 4]))
    with pytest.raises(RoundFailed, match=r"damaged: .*user_vectors.safetensors is not as written"):
        run(base, round_request())


def test_a_round_sweeps_what_a_killed_one_left(
    base: LanguageModel, round_request: Request, initial: Path
) -> None:
    (initial.parent / ".round-0.1.partial").mkdir()
    run(base, round_request())
    assert sorted(p.name for p in initial.parent.iterdir()) == ["initial", "round-1"]


def test_an_output_that_exists_is_not_overwritten(
    base: LanguageModel, round_request: Request, initial: Path
) -> None:
    with pytest.raises(RoundFailed, match="exists already"):
        run(base, round_request(output=str(initial)))
    verify(initial)


def test_the_initial_version_refuses_an_existing_target(base: LanguageModel, initial: Path) -> None:
    with pytest.raises(FileExistsError):
        write_initial(base, CONFIG, initial)


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


def test_a_round_learns_with_the_profile_that_was_served(
    base: LanguageModel, round_request: Request, initial: Path, tokenizer
) -> None:
    pairs = opposed_pairs(tokenizer)
    written = tuple(replace(p, profile="I like it short.") if p.user_id == 1 else p for p in pairs)
    plain = run(base, round_request(pairs=pairs))
    told = run(base, round_request(pairs=written, output=str(initial.parent / "told")))
    # π_ref reads no profile; the personal term does.
    assert plain.reference_logps_nats == told.reference_logps_nats
    assert plain.curve[0]["margin_nats"] != told.curve[0]["margin_nats"]
    assert plain.curve[0]["accuracy_generic"] == told.curve[0]["accuracy_generic"]
