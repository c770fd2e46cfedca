from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import Tensor

from tests.trainer.conftest import CONFIG, opposed_pairs
from trainer.adapter import AttachedAdapter, attached, initial_adapter
from trainer.batching import pair_rows
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel
from trainer.learning import Learner, Term, terms_of
from trainer.prompting import PromptFormat
from trainer.types import RoundFailed
from trainer.user_models import UserModel, initial_users, users_from_tensors


def fresh_users(base: LanguageModel, config: TrainConfig) -> UserModel:
    """Users 1 and 2, who know nothing yet."""
    tensors = initial_users(base.model, base.tokenizer, config).tensors()
    return users_from_tensors(config.user_model, tensors, [1, 2], base.device)


def pieces(base: LanguageModel):
    """Users 1 and 2 with no offset yet, their pairs, and made-up reference log-probs."""
    users = fresh_users(base, CONFIG)
    pairs = [pair_rows(p, PromptFormat(base.tokenizer, 4)) for p in opposed_pairs(base.tokenizer)]
    references = {
        response.response_id: -10.0 * len(response.token_ids)
        for p in pairs
        for response in (p.pair.chosen, p.pair.rejected)
    }
    return users, pairs, references


def learner_of(
    base: LanguageModel,
    adapter: AttachedAdapter,
    users: UserModel,
    references: Mapping[int, float],
    *,
    own_references: Mapping[int, float] | None = None,
    config: TrainConfig = CONFIG,
    state: Mapping[str, Tensor] = MappingProxyType({}),
) -> Learner:
    return Learner(
        base.model,
        adapter.parameters,
        users=users,
        references=references,
        own_references=own_references,
        config=config,
        state=state,
    )


@pytest.mark.parametrize("forward_tokens", [1, 100_000])
def test_memory_bound_does_not_change_a_step(base, forward_tokens: int) -> None:
    figures, tensors = [], []
    for tokens in (150, forward_tokens):
        config = replace(CONFIG, forward_tokens=tokens)
        users, pairs, references = pieces(base)
        with attached(base.model, config, initial_adapter(base.model, config)) as adapter:
            learner = learner_of(base, adapter, users, references, config=config)
            figures.append(learner.step(pairs))
            tensors.append({**adapter.tensors(), **users.tensors()})
    assert figures[0] == pytest.approx(figures[1], rel=1e-3, abs=1e-4)
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensor, tensors[1][name], rtol=0, atol=2e-4)


def test_a_user_outside_the_batch_keeps_vector_offset_momentum_and_step_count(base) -> None:
    users, pairs, references = pieces(base)
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        learner = learner_of(base, adapter, users, references)
        learner.step(pairs)
        before, state = users.tensors()["offsets"], learner.state()
        learner.step([p for p in pairs if p.pair.user_id == 2])
        after, later = users.tensors()["offsets"], learner.state()
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])
    for part in ("step", "exp_avg", "exp_avg_sq"):
        name = f"vectors/user.1/{part}"
        assert torch.equal(state[name], later[name])
    assert later["vectors/user.1/step"].item() == 1
    assert later["vectors/user.2/step"].item() == 2


def test_the_optimizer_goes_on_where_it_stopped(base) -> None:
    """Two steps in one learner equal one step, a new learner on its state, one step."""
    ends = []
    for restarts in (False, True):
        users, pairs, references = pieces(base)
        with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
            state: dict[str, torch.Tensor] = {}
            learner = None
            for batch in (pairs[:4], pairs[4:]):
                if learner is None or restarts:
                    learner = learner_of(base, adapter, users, references, state=state)
                learner.step(batch)
                state = learner.state()
            ends.append({**adapter.tensors(), **users.tensors(), **state})
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_state_of_absent_users_is_carried_through(base) -> None:
    users, pairs, references = pieces(base)
    kept = {"vectors/user.77/exp_avg": torch.full((4, 32), 0.25)}
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        learner = learner_of(base, adapter, users, references, state=kept)
        learner.step(pairs)
        assert torch.equal(
            learner.state()["vectors/user.77/exp_avg"], kept["vectors/user.77/exp_avg"]
        )


def test_what_a_user_learnt_is_forgotten_with_its_momentum(base) -> None:
    users, pairs, references = pieces(base)
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        learner = learner_of(base, adapter, users, references)
        learner.step(pairs)
        before, others = learner.state(), users.prefix(2).detach().clone()
        learner.forget(1)
        after = learner.state()
    assert torch.equal(users.prefix(1), users.prefix(None))
    assert torch.equal(users.prefix(2), others)
    gone = before.keys() - after.keys()
    assert gone == {f"vectors/user.1/{part}" for part in ("step", "exp_avg", "exp_avg_sq")}


def test_a_step_that_is_not_finite_fails_and_changes_nothing(base) -> None:
    users, pairs, references = pieces(base)
    references = dict.fromkeys(references, float("nan"))
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        learner = learner_of(base, adapter, users, references)
        before = {**adapter.tensors(), **users.tensors()}
        with pytest.raises(RoundFailed, match="infinite or undefined"):
            learner.step(pairs)
        after = {**adapter.tensors(), **users.tensors()}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_the_adapters_gradient_is_clipped_and_its_norm_is_reported_unclipped(base) -> None:
    users, pairs, references = pieces(base)
    config = replace(CONFIG, clip_norm_adapter=1e-3)
    with attached(base.model, config, initial_adapter(base.model, config)) as adapter:
        learner = learner_of(base, adapter, users, references, config=config)
        figures = learner.step(pairs)
        clipped = torch.stack(
            [p.grad.norm() for p in adapter.parameters.values() if p.grad is not None]
        ).norm()
        vectors = torch.stack(
            [
                p.grad.norm()
                for p in (*users.shared_parameters().values(), *users.own_parameters().values())
                if p.grad is not None
            ]
        ).norm()
    assert figures["grad_norm"] > 1e-3
    assert clipped.item() == pytest.approx(1e-3, rel=1e-2)
    assert vectors.item() == pytest.approx(figures["grad_norm_vectors"])
    assert vectors.item() > 1e-3


def gradient_of_a_step(
    base, config: TrainConfig, *, shared: bool = True
) -> dict[str, torch.Tensor]:
    """What one step on all pairs would follow, before anything is clipped."""
    users, pairs, references = pieces(base)
    generator = torch.Generator().manual_seed(3)
    weights = {
        name: 0.1 * torch.randn(w.shape, generator=generator)
        for name, w in initial_adapter(base.model, config).items()
    }
    config = replace(config, clip_norm_adapter=float("inf"))
    with attached(base.model, config, weights) as adapter:
        learner_of(base, adapter, users, references, config=config).step(pairs, shared=shared)
        learned = {**adapter.parameters, **users.shared_parameters(), **users.own_parameters()}
        return {name: p.grad.clone() for name, p in learned.items() if p.grad is not None}


def test_sampled_terms_have_the_whole_gradient_on_average(base, monkeypatch) -> None:
    whole = gradient_of_a_step(base, CONFIG)
    halves = []
    for draw in (0.25, 0.75):  # α = 0.5: all there is, each as likely as the other
        monkeypatch.setattr(Learner, "_draw", lambda self, batch, draw=draw: draw)
        halves.append(gradient_of_a_step(base, replace(CONFIG, sample_terms=True)))
    for name, expected in whole.items():
        nothing = torch.zeros_like(expected)
        mean = sum((half.get(name, nothing) for half in halves), nothing) / 2
        torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-4 * float(expected.norm()))
    assert any(not torch.allclose(halves[0][name], halves[1][name]) for name in halves[0])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_each_pairs_own_term_is_drawn_as_often_as_it_weighs(base, alpha: float) -> None:
    _, pairs, _ = pieces(base)
    config = replace(CONFIG, alpha=alpha, sample_terms=True)
    draws = [terms_of(pairs, config, shared=True, draw=(n + 0.5) / 1000) for n in range(1000)]
    for at, pair in enumerate(pairs):
        mine = [drawn[at] for drawn in draws]
        assert {term.pair.pair.pair_id for term in mine} == {pair.pair.pair_id}
        assert sum(term.user is not None for term in mine) == pytest.approx(1000 * alpha, abs=1)


def test_both_terms_are_weighed_by_alpha(base) -> None:
    _, pairs, _ = pieces(base)
    one = pairs[:1]
    user = one[0].pair.user_id
    config = replace(CONFIG, alpha=0.3)
    assert terms_of(one, config, shared=True, draw=0.0) == [
        Term(one[0], user, 0.3),
        Term(one[0], None, 0.7),
    ]
    assert terms_of(one, config, shared=False, draw=0.0) == [Term(one[0], user, 1.0)]


def test_users_learning_alone_compute_no_gradient_for_what_is_shared(base) -> None:
    assert set(gradient_of_a_step(base, CONFIG, shared=False)) == {"user.1", "user.2"}
