"""π_ref of users' own terms: the base model under what was not learnt from pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch

from tests.trainer.conftest import CONFIG, DIRECTIONS, opposed_pairs
from tests.trainer.test_learning import learner_of
from trainer.adapter import attached, initial_adapter
from trainer.batching import PairRows, pair_rows
from trainer.config import UserModelKind
from trainer.language_model import LanguageModel
from trainer.prompting import PromptFormat
from trainer.references import base_references, own_references
from trainer.scoring import response_logps
from trainer.types import RoundFailed
from trainer.user_models import UserModel, initial_users, users_from_tensors

STYLED = replace(CONFIG, user_model="styled")


def rows(base: LanguageModel) -> list[PairRows]:
    """Pairs of users 1 and 2."""
    return [pair_rows(p, PromptFormat(base.tokenizer, 4)) for p in opposed_pairs(base.tokenizer)]


def users_of(base: LanguageModel, kind: UserModelKind = "styled") -> UserModel:
    """User 1 likes the first style, user 2 no style; neither has learnt anything."""
    config = replace(CONFIG, user_model=kind)
    directions = DIRECTIONS if kind == "styled" else None
    tensors = initial_users(base.model, base.tokenizer, config, directions).tensors()
    shares = {1: torch.eye(len(DIRECTIONS))[0]} if kind == "styled" else None
    return users_from_tensors(config.user_model, tensors, [1, 2], base.device, shares)


def of_base(base: LanguageModel, pairs: Sequence[PairRows]) -> dict[int, float]:
    """What π_ref says without any user."""
    return base_references(base, pairs, [], CONFIG, lambda _: None)[0]


def test_styles_belong_to_the_reference_and_the_adapter_does_not(base) -> None:
    pairs, users = rows(base), users_of(base)
    references = of_base(base, pairs)
    weights = {
        name: torch.full_like(tensor, 0.05)
        for name, tensor in initial_adapter(base.model, STYLED).items()
    }
    with attached(base.model, STYLED, weights) as adapter:
        own = own_references(
            base, adapter, users, [pairs[:2], pairs[2:]], references=references, config=STYLED
        )
    assert own.keys() == references.keys()
    for pair in pairs:
        for row, response in (
            (pair.chosen, pair.pair.chosen),
            (pair.rejected, pair.pair.rejected),
        ):
            vector = users.unlearnt(pair.pair.user_id).detach()
            (expected,) = response_logps(base.model, [row], [vector], max_tokens=10_000).tolist()
            assert own[response.response_id] == pytest.approx(expected, abs=1e-3)
            if pair.pair.user_id == 1:
                assert abs(expected - references[response.response_id]) > 1e-2


@pytest.mark.parametrize("kind", ["individual", "cluster"])
def test_where_all_is_learnt_the_reference_is_the_base_model(base, kind: UserModelKind) -> None:
    pairs = rows(base)
    references = of_base(base, pairs)
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        own = own_references(
            base, adapter, users_of(base, kind), [pairs], references=references, config=CONFIG
        )
    assert own == references


@pytest.mark.parametrize("alpha", [1.0, 0.0])
def test_who_has_learnt_nothing_begins_at_a_margin_of_nothing(base, alpha: float) -> None:
    """And the generic term, alone where α = 0, keeps the base model's."""
    pairs = rows(base)
    references = of_base(base, pairs)
    config = replace(STYLED, alpha=alpha)

    def step(known: Mapping[int, float] | None) -> dict[str, float]:
        users = users_of(base)
        with attached(base.model, config, initial_adapter(base.model, config)) as adapter:
            learner = learner_of(
                base, adapter, users, references, own_references=known, config=config
            )
            return learner.step(pairs)

    with attached(base.model, config, initial_adapter(base.model, config)) as adapter:
        own = own_references(
            base, adapter, users_of(base), [pairs], references=references, config=config
        )
    first, before = step(own), step(None)
    if alpha:
        assert first["margin_nats"] == pytest.approx(0, abs=1e-4)
        assert first["chosen_logp_change"] == pytest.approx(0, abs=1e-5)
        assert abs(before["margin_nats"]) > 1e-2
    else:
        assert first["loss"] == before["loss"]


def test_a_response_has_one_user_whose_reference_it_has(base) -> None:
    pairs, users = rows(base), users_of(base)
    references = of_base(base, pairs)
    twice = [replace(pairs[0], pair=replace(pairs[0].pair, user_id=2)), *pairs]
    with (
        attached(base.model, STYLED, initial_adapter(base.model, STYLED)) as adapter,
        pytest.raises(RoundFailed, match="response 0 has pairs of two users"),
    ):
        own_references(base, adapter, users, [twice], references=references, config=STYLED)
