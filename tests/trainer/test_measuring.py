from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.trainer.conftest import CONFIG, opposed_pairs, prompt
from trainer.adapter import attached, initial_adapter
from trainer.batching import Row, pair_rows
from trainer.held_out import held_out_readings
from trainer.measuring import (
    Examination,
    altered_users,
    end_logp_change,
    measure,
    round_pairs,
)
from trainer.probes import BaseTexts
from trainer.prompting import PromptFormat
from trainer.scoring import response_logps
from trainer.user_models import individual_from_tensors, initial_users


def users_of(base, *users: int, scale: float = 0.3) -> dict[str, Tensor]:
    """An individual user model's tensors, each user at random."""
    generator = torch.Generator().manual_seed(1)
    generic = initial_users(base.model, base.tokenizer, CONFIG).prefix(None).detach()
    offsets = scale * torch.randn(len(users), *generic.shape, generator=generator)
    return {"generic": generic, "user_ids": torch.tensor(users), "offsets": offsets}


def known_references(base, rows) -> dict[int, float]:
    with torch.no_grad():
        return {
            response.response_id: float(response_logps(base.model, [row], [None], max_tokens=999))
            for one in rows
            for response, row in (
                (one.pair.chosen, one.reference_chosen),
                (one.pair.rejected, one.reference_rejected),
            )
        }


def test_who_did_not_take_part_is_carried_over_bit_for_bit(base) -> None:
    parent = users_of(base, 1, 2, 3)
    now = {name: tensor.clone() for name, tensor in parent.items()}
    assert altered_users(parent, now, set()) == ()
    now["offsets"][0] += 1
    now["offsets"][2, 0, 0] += 1e-6
    assert altered_users(parent, now, {1}) == (3,)
    lost = {"generic": now["generic"], "user_ids": torch.tensor([1]), "offsets": now["offsets"][:1]}
    assert altered_users(parent, lost, {1}) == (2, 3)


def test_cluster_users_are_compared_by_their_weights() -> None:
    parent = {
        "clusters": torch.zeros(2, 4, 8),
        "user_ids": torch.tensor([1, 2]),
        "weights": torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
    }
    moved = {**parent, "clusters": torch.ones(2, 4, 8)}  # clusters are everybody's
    assert altered_users(parent, moved, {1}) == ()
    assert altered_users(parent, {**moved, "weights": parent["weights"].flip(0)}, {1}) == (2,)


def test_round_pairs_are_losses_with_and_without_what_was_learnt(base, tokenizer) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    rows = [pair_rows(pair, prompts) for pair in opposed_pairs(tokenizer)]
    references = known_references(base, rows)
    users = individual_from_tensors(users_of(base, 1), (), base.device)
    measured = round_pairs(base, users, rows, references, CONFIG)
    assert [pair.user_id for pair in measured] == [1] * 3 + [2] * 3
    # Three of each user's four, evenly.
    taken = [rows[i] for i in (0, 2, 4, 1, 3, 5)]
    own = held_out_readings(base, users, taken, references, CONFIG)
    for pair, reading in zip(measured, own, strict=True):
        assert abs(pair.own_nats - reading.loss_nats) < 1e-4
        # User 2 has not been met and is the generic user.
        assert (abs(pair.own_nats - pair.unlearnt_nats) < 1e-4) is (pair.user_id == 2)


def test_the_end_of_turn_is_compared_where_a_chosen_response_ended(base, tokenizer) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    rows = [pair_rows(pair, prompts) for pair in opposed_pairs(tokenizer)]
    users = individual_from_tensors(users_of(base, 1), (), base.device)
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        # Only user 1 chooses responses that ended.
        change = end_logp_change(base, adapter, users, rows, CONFIG)
        assert end_logp_change(base, adapter, users, rows[1::2], CONFIG) is None
    expected = []
    for one in rows[::2]:
        parts = []
        for row, prefix in ((one.chosen, users.prefix(1)), (one.reference_chosen, None)):
            cut = Row(row.prompt, row.response_ids[:-1])
            with torch.no_grad():
                whole, before = (
                    float(response_logps(base.model, [r], [prefix], max_tokens=999))
                    for r in (row, cut)
                )
            parts.append(whole - before)
        expected.append(parts[0] - parts[1])
    assert change is not None
    assert abs(change - sum(expected) / len(expected)) < 1e-4


def measured(base, tokenizer, users, carried, round_id: int = 1):
    """What `measure` finds in a full round of users 1 and 2."""
    prompts = PromptFormat(base.tokenizer, 4)
    rows = [pair_rows(pair, prompts) for pair in opposed_pairs(tokenizer)]
    examination = Examination(
        kind="full",
        round_id=round_id,
        pairs=rows,
        held_out=(),
        before=(),
        references=known_references(base, rows),
        carried=carried,
        prompts=[prompt("What is tea?")],
    )
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        return measure(base, adapter, users, examination, config=CONFIG, base_texts=BaseTexts())


def test_a_held_out_pairs_end_of_turn_is_read_where_a_response_ended(base, tokenizer) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    rows = [pair_rows(pair, prompts) for pair in opposed_pairs(tokenizer)]
    users = individual_from_tensors(users_of(base, 1), (), base.device)
    readings = held_out_readings(base, users, rows, known_references(base, rows), CONFIG)
    for pair, reading in zip(rows, readings, strict=True):
        vector = users.prefix(pair.pair.user_id).detach()
        ends = []
        for row in (pair.chosen, pair.rejected):
            if row.response_ids[-1] in base.stop_ids:
                cut = replace(row, response_ids=row.response_ids[:-1])
                with torch.no_grad():
                    whole, before = (
                        float(response_logps(base.model, [r], [vector], max_tokens=999))
                        for r in (row, cut)
                    )
                ends.append(whole - before)
        assert reading.end_logp == pytest.approx(sum(ends) / len(ends), abs=1e-4)


def test_one_of_those_who_did_not_take_part_writes_too_another_in_each_round(
    base, tokenizer
) -> None:
    tensors = users_of(base, 1, 2, 3, 4)
    users = individual_from_tensors(tensors, (1, 2), base.device)
    for round_id, absent in ((1, "user 4"), (2, "user 3")):
        figures, samples = measured(base, tokenizer, users, tensors, round_id)
        assert list(figures.texts) == ["generic", "user 1", "user 2", absent]
        assert list(figures.drift_nats) == list(figures.texts)
        assert len(samples) == 5


def test_what_is_refused_whatever_it_writes_writes_nothing(base, tokenizer) -> None:
    tensors = users_of(base, 1, 2, 3)
    elsewhere = {**tensors, "offsets": tensors["offsets"].clone()}
    elsewhere["offsets"][2] += 1
    undefined = {**tensors, "offsets": tensors["offsets"].clone()}
    undefined["offsets"][0, 0, 0] = float("nan")
    for candidate, altered, nonfinite in (
        (elsewhere, (3,), ()),
        (undefined, (), ("offsets",)),
    ):
        users = individual_from_tensors(candidate, (1, 2), base.device)
        figures, samples = measured(base, tokenizer, users, tensors)
        assert (figures.altered, figures.nonfinite) == (altered, nonfinite)
        assert (figures.base_texts, dict(figures.texts), samples) == (None, {}, ())
