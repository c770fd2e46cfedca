from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.trainer.conftest import CONFIG, opposed_pairs, prompt
from trainer.adapter import attached, initial_adapter
from trainer.batching import Row, pair_rows
from trainer.measuring import _ANOTHER, Examination, ParentState, altered_users, measure
from trainer.own_pairs import OwnPairs, examined, read_own_pairs, round_pairs
from trainer.probes import BaseTexts
from trainer.probing import Probing
from trainer.prompting import PromptFormat
from trainer.readings import PairReading, own_readings
from trainer.scoring import response_logps
from trainer.styled_users import StyledUserModel
from trainer.user_models import individual_from_tensors, initial_users


def users_of(base, *users: int, scale: float = 0.3) -> dict[str, Tensor]:
    """An individual user model's tensors, each user at random."""
    generator = torch.Generator().manual_seed(1)
    generic = initial_users(base.model, base.tokenizer, CONFIG).prefix(None).detach()
    offsets = scale * torch.randn(len(users), *generic.shape, generator=generator)
    return {"generic": generic, "user_ids": torch.tensor(users), "offsets": offsets}


def own_pairs_of(base, users, rows, references) -> OwnPairs:
    """As a round reads them in which nothing was learnt."""
    before = own_readings(base, users, rows, references, CONFIG)
    return read_own_pairs(base, users, rows, before, references=references, config=CONFIG)


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


def test_a_rounds_pairs_are_read_as_before_as_now_and_without_what_was_learnt(
    base, tokenizer
) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    rows = [pair_rows(pair, prompts) for pair in opposed_pairs(tokenizer)]
    references = known_references(base, rows)
    parent = individual_from_tensors(users_of(base, 1, scale=0.1), (), base.device)
    users = individual_from_tensors(users_of(base, 1), (), base.device)
    taken = examined(rows)
    assert [one.pair.user_id for one in taken] == [1] * 4 + [2] * 4
    before, own = (own_readings(base, of, taken, references, CONFIG) for of in (parent, users))
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        both = read_own_pairs(base, users, taken, before, references=references, config=CONFIG)
        read = round_pairs(base, adapter, users.prefix(None), both, CONFIG)
    for pair, was, now in zip(read, before, own, strict=True):
        assert (pair.parent_nats, pair.own_nats) == pytest.approx((was.loss_nats, now.loss_nats))
        assert pair.chosen_logp_change == pytest.approx(now.chosen_logp_change, abs=1e-5)
        # User 2 has not been met and is the generic user.
        assert (abs(pair.own_nats - pair.unlearnt_nats) < 1e-4) is (pair.user_id == 2)


def reading(loss_nats: float) -> PairReading:
    return PairReading(loss_nats, 0.0, None, None)


def test_whom_it_suits_worse_than_nothing_over_a_few_pairs_is_a_misfit(base, tokenizer) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    one = next(iter(opposed_pairs(tokenizer)))
    users = (1, 1, 1, 2, 2, 3, 3, 3)
    rows = [pair_rows(replace(one, user_id=user), prompts) for user in users]
    now = [reading(nats) for nats in (0.9, 0.5, 0.8, 9.0, 9.0, 0.6, 0.7, 0.7)]
    nothing = [reading(0.7)] * 8
    own = OwnPairs(rows, nothing, now, nothing)
    assert own.misfits() == (1,)  # two pairs say nothing of user 2
    assert [r.loss_nats for r in own.without({1}).now] == [0.7] * 3 + [9.0, 9.0, 0.6, 0.7, 0.7]


def test_of_many_pairs_some_are_examined_evenly(base, tokenizer) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    one = next(iter(opposed_pairs(tokenizer)))
    rows = [pair_rows(replace(one, pair_id=n), prompts) for n in range(12)]
    assert [taken.pair.pair_id for taken in examined(rows)] == [0, 2, 4, 6, 8, 10]


def test_the_end_of_turn_is_compared_where_a_chosen_response_ended(base, tokenizer) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    rows = [pair_rows(pair, prompts) for pair in opposed_pairs(tokenizer)]
    references = known_references(base, rows)
    users = individual_from_tensors(users_of(base, 1), (), base.device)
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        own = own_pairs_of(base, users, rows, references)
        read = round_pairs(base, adapter, users.prefix(None), own, CONFIG)
    for pair, one in zip(read, rows, strict=True):
        if one.pair.user_id == 2:  # chooses only what has not ended
            assert pair.end_logp_change is None
            continue
        now, reference = (
            _end_logp(base, row, prefix)
            for row, prefix in ((one.chosen, users.prefix(1)), (one.reference_chosen, None))
        )
        assert pair.end_logp_change == pytest.approx(now - reference, abs=1e-4)


def test_shares_of_styles_do_not_count_as_forgetting_to_end(base, tokenizer) -> None:
    """One user has learnt nothing, and is served a style under which responses end otherwise."""
    prompts = PromptFormat(base.tokenizer, 4)
    rows = [pair_rows(pair, prompts) for pair in opposed_pairs(tokenizer)][:1]
    references = known_references(base, rows)
    generic = users_of(base)["generic"]
    directions = 20 * torch.randn(1, *generic.shape, generator=torch.Generator().manual_seed(2))
    users = StyledUserModel(generic, directions, {1: torch.ones(1)}, {1: 0.0 * generic}, ())
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        own = own_pairs_of(base, users, rows, references)
        (pair,) = round_pairs(base, adapter, generic, own, CONFIG)
    (one,) = rows
    styled, generic_end, reference = (
        _end_logp(base, row, prefix)
        for row, prefix in (
            (one.chosen, users.prefix(1)),
            (one.generic_chosen, generic),
            (one.reference_chosen, None),
        )
    )
    assert abs(styled - generic_end) > 5e-4
    assert pair.end_logp_change == pytest.approx(generic_end - reference, abs=1e-4)


@torch.no_grad()
def _end_logp(base, row: Row, prefix: Tensor | None) -> float:
    """Of the last token, as what all tokens have less all but it."""
    cut = Row(row.prompt, row.response_ids[:-1])
    whole, before = (
        float(response_logps(base.model, [r], [prefix], max_tokens=999)) for r in (row, cut)
    )
    return whole - before


def measured(base, tokenizer, users, carried, *, round_id: int = 1, config=CONFIG, parent=None):
    """What `measure` finds in a full round of users 1 and 2 whose adapter did not change."""
    weights = initial_adapter(base.model, CONFIG)
    prompts = PromptFormat(base.tokenizer, 4)
    rows = [pair_rows(pair, prompts) for pair in opposed_pairs(tokenizer)]
    references = known_references(base, rows)
    examination = Examination(
        kind="full",
        round_id=round_id,
        pairs=rows,
        held_out=(),
        before=(),
        own=own_pairs_of(base, users, rows, references),
        own_references=references,
        parent=ParentState(weights, parent or users, carried),
        prompts=[prompt("What is tea?")],
    )
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        found = measure(base, adapter, users, examination, config=config, base_texts=BaseTexts())
        assert all(torch.equal(w, weights[name]) for name, w in adapter.tensors().items())
    return found


def test_a_held_out_pairs_end_of_turn_is_read_where_a_response_ended(base, tokenizer) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    rows = [pair_rows(pair, prompts) for pair in opposed_pairs(tokenizer)]
    users = individual_from_tensors(users_of(base, 1), (), base.device)
    readings = own_readings(base, users, rows, known_references(base, rows), CONFIG)
    for pair, reading in zip(rows, readings, strict=True):
        vector = users.prefix(pair.pair.user_id).detach()
        ends = [
            _end_logp(base, row, vector)
            for row in (pair.chosen, pair.rejected)
            if row.response_ids[-1] in base.stop_ids
        ]
        assert reading.end_logp == pytest.approx(sum(ends) / len(ends), abs=1e-4)


def test_one_of_those_who_did_not_take_part_writes_too_another_in_each_round(
    base, tokenizer
) -> None:
    tensors = users_of(base, 1, 2, 3, 4)
    users = individual_from_tensors(tensors, (1, 2), base.device)
    for round_id, absent in ((1, "user 4"), (2, "user 3")):
        figures, samples = measured(base, tokenizer, users, tensors, round_id=round_id)
        assert list(figures.texts) == ["generic", "user 1", "user 2", absent]
        assert list(figures.drift_nats) == list(figures.texts)
        assert len(samples) == 5


DOUBTING = replace(CONFIG, gate=replace(CONFIG.gate, doubtful_nll_rise_nats=-99.0))


def test_whoever_is_in_doubt_writes_more_and_as_under_the_parent(base, tokenizer) -> None:
    tensors = users_of(base, 1, 2, 3)
    users = individual_from_tensors(tensors, (1, 2), base.device)
    figures, samples = measured(base, tokenizer, users, tensors, config=DOUBTING)
    assert set(figures.more_texts) == set(figures.parent_texts) == set(figures.texts)
    assert {texts.texts for texts in figures.more_texts.values()} == {2}
    assert {texts.texts for texts in figures.parent_texts.values()} == {3}
    assert len(samples) == 5
    assert all(figures.more_texts[who] != once for who, once in figures.texts.items())

    other = individual_from_tensors(users_of(base, 1, 2, 3, scale=3.0), (), base.device)
    apart, _ = measured(base, tokenizer, users, tensors, config=DOUBTING, parent=other)
    assert apart.more_texts == figures.more_texts
    assert apart.parent_texts["generic"] == figures.parent_texts["generic"]
    assert apart.parent_texts["user 1"] != figures.parent_texts["user 1"]

    sure, _ = measured(base, tokenizer, users, tensors)
    assert not sure.more_texts
    assert not sure.parent_texts


def test_more_texts_are_others(base, tokenizer) -> None:
    """One prompt several times, under vectors that differ: no draw is made twice."""
    users = individual_from_tensors(users_of(base, 1), (), base.device)
    with attached(base.model, CONFIG, initial_adapter(base.model, CONFIG)) as adapter:
        probing = Probing(base, adapter, (prompt("What is tea?"),), {}, BaseTexts(), CONFIG)
        once = probing.written({None: users.prefix(1), 1: users.prefix(1)}, 7)
        more = probing.written({1: users.prefix(1)}, 7 + _ANOTHER, times=2)
    ids = [text.token_ids for texts in (*once.values(), *more.values()) for text in texts]
    assert len(set(ids)) == len(ids) == 4


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
