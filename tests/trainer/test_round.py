from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.trainer.conftest import CONFIG, DIRECTIONS, IDENTITY, opposed_pairs
from tests.trainer.rounds import KINDS, epoch_means, recipe_of, run
from tests.trainer.test_user_models import OWN, SHARED
from tests.trainer.tiny_decoders import DEVICES
from trainer import artifacts
from trainer.artifacts import load_version, verify
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel
from trainer.probes import BaseTexts
from trainer.round import run_round, write_initial
from trainer.types import (
    Phase,
    PreferencePair,
    Progress,
    RoundFailed,
    RoundRequest,
    RoundResult,
)
from trainer.user_models import initial_users

Request = Callable[..., RoundRequest]
TENSORS = (artifacts.ADAPTER_WEIGHTS, artifacts.USER_VECTORS, artifacts.TRAINER_STATE)


@pytest.fixture(params=KINDS)
def recipe(request: pytest.FixtureRequest) -> TrainConfig:
    """Every round here is run with every user model."""
    return recipe_of(request.param)


def test_the_initial_version_is_e0_from_words_and_an_adapter_without_effect(
    base: LanguageModel, recipe: TrainConfig, initial: Path
) -> None:
    version = load_version(initial, base_identity=IDENTITY)
    start = initial_users(base.model, base.tokenizer, recipe, DIRECTIONS)
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


def test_a_model_in_bfloat16_learns_in_fp32(
    base: LanguageModel, recipe: TrainConfig, round_request: Request, initial: Path
) -> None:
    """Steps this small vanish where weights are kept in bfloat16: its numbers lie too far apart."""
    base.model.to(torch.bfloat16)  # type: ignore[arg-type]
    config = replace(recipe, epochs=1, learning_rate_adapter=1e-6, learning_rate_vector=1e-6)
    result = run(base, round_request(config=config))
    for name in TENSORS:
        kept = load_file(Path(result.artifact) / name)
        assert all(t.dtype == torch.float32 for t in kept.values() if t.is_floating_point())
    before, after = (
        load_file(path / artifacts.ADAPTER_WEIGHTS) for path in (initial, Path(result.artifact))
    )
    steps = len(result.curve)
    for name, weight in before.items():
        moved = after[name] - weight
        assert moved.any()
        assert moved.abs().max() <= 1.1e-6 * steps


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


def test_rounds_of_one_process_share_the_base_models_texts(
    base: LanguageModel, recipe: TrainConfig, round_request: Request, initial: Path
) -> None:
    texts, written = BaseTexts(), []
    for seed in (1, 2):  # the app gives each round a seed of its own
        request = round_request(
            output=str(initial.parent / f"r{seed}"), config=replace(recipe, seed=seed)
        )
        samples = run_round(base, request, lambda _: None, texts).gate.samples
        written.append([sample["text"] for sample in samples if sample["condition"] == "base"])
    assert written[0]
    assert written[0] == written[1]


def test_a_child_goes_on_from_its_parent(
    base: LanguageModel, recipe: TrainConfig, round_request: Request, initial: Path, tokenizer
) -> None:
    first = run(base, round_request(pairs=opposed_pairs(tokenizer, users=(1, 2))))
    second_path = initial.parent / "round-2"
    run(
        base,
        round_request(
            round_id=2,
            pairs=opposed_pairs(tokenizer, users=(5, 2)),
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
    for shared in SHARED[recipe.user_model]:
        assert [state[f"vectors/{shared}/step"].item() for state in states] == [6, 12]
    user_2 = [state["vectors/user.2/step"].item() for state in states]
    assert user_2[0] < user_2[1]
    assert states[1]["vectors/user.5/step"].item() <= 6


def with_references(
    pairs: Sequence[PreferencePair], known: Mapping[int, float]
) -> tuple[PreferencePair, ...]:
    return tuple(
        replace(
            p,
            chosen=replace(p.chosen, reference_logp_nats=known[p.chosen.response_id]),
            rejected=replace(p.rejected, reference_logp_nats=known[p.rejected.response_id]),
        )
        for p in pairs
    )


def test_reference_values_come_back_and_given_ones_are_used(
    base: LanguageModel, round_request: Request, initial: Path, tokenizer
) -> None:
    pairs = opposed_pairs(tokenizer)
    first = run(base, round_request(pairs=pairs))
    found = first.reference_logps_nats
    assert set(found) == {r.response_id for p in pairs for r in (p.chosen, p.rejected)}

    known = with_references(pairs, found)
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
    shares = {1: (0.9, 0.0, 0.0, 0.2, 0.0, 0.0)}
    plain = run(base, round_request(output=str(initial.parent / "plain"), style_shares=shares))
    # Computed beside others, a log-prob may differ in its last bit.
    pairs = with_references(opposed_pairs(tokenizer), plain.reference_logps_nats)
    held_out = (*held_out, pairs[0])  # and one that is trained on
    result = run(base, round_request(pairs=pairs, held_out=held_out, style_shares=shares))
    assert result.gate.figures["held_out_pairs"] == 3
    assert result.gate.figures["held_out_loss"] != result.gate.figures["held_out_loss_parent"]
    for name in TENSORS:
        ours, theirs = Path(result.artifact) / name, Path(plain.artifact) / name
        assert ours.read_bytes() == theirs.read_bytes()
    assert set(result.reference_logps_nats) == {16, 17, 18, 19}


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
    os.utime(initial.parent / ".round-0.1.partial", (0, 0))
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


@pytest.mark.parametrize("device", DEVICES)
def test_a_round_comes_to_the_same_on_every_device(
    base: LanguageModel, round_request: Request, initial: Path, device: str
) -> None:
    here = run(base, round_request())
    nn.Module.to(base.model, device)
    there = run(base, round_request(output=str(initial.parent / "there")))
    assert there.gate.passed == here.gate.passed
    for one, other in zip(there.curve, here.curve, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.01, abs=0.01)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=0.05)
