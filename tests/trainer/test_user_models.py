from __future__ import annotations

import pytest
import torch

from trainer.user_models import IndividualUserModel, individual_from_tensors, words_prefix

GENERIC = torch.arange(6.0).reshape(2, 3) / 7
KNOWN = {4: torch.full((2, 3), 0.3), 9: torch.full((2, 3), -0.1)}


def test_a_new_user_is_exactly_the_generic_user() -> None:
    users = IndividualUserModel(GENERIC, KNOWN, learning=[5])
    assert torch.equal(users.prefix(5), users.prefix(None))
    assert torch.equal(users.prefix(12345), users.prefix(None))
    assert torch.equal(users.vectors().vector(5), GENERIC)


def test_a_users_vector_is_generic_plus_offset() -> None:
    users = IndividualUserModel(GENERIC, KNOWN, learning=[4])
    assert torch.equal(users.prefix(4), GENERIC + KNOWN[4])
    assert torch.equal(users.prefix(9), GENERIC + KNOWN[9])


def test_only_learning_users_have_parameters() -> None:
    users = IndividualUserModel(GENERIC, KNOWN, learning=[9, 2, 9])
    assert set(users.named_parameters()) == {"generic", "user.2", "user.9"}


def test_a_user_outside_the_batch_gets_no_gradient_and_does_not_drift_by_one_bit() -> None:
    users = IndividualUserModel(GENERIC, KNOWN, learning=[4, 9])
    parameters = users.named_parameters()
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1, weight_decay=0.0)
    for user in (4, 9, 9):  # user 4 has momentum from the first step
        optimizer.zero_grad()
        before = users.tensors()["offsets"]
        users.prefix(user).square().sum().backward()
        other = {4: 9, 9: 4}[user]
        assert parameters[f"user.{other}"].grad is None
        optimizer.step()
        after = users.tensors()["offsets"]
        row = {4: 0, 9: 1}
        assert torch.equal(before[row[other]], after[row[other]])
        assert not torch.equal(before[row[user]], after[row[user]])
    assert optimizer.state[parameters["user.4"]]["step"].item() == 1
    assert optimizer.state[parameters["user.9"]]["step"].item() == 2


def test_tensors_round_trip_bit_for_bit() -> None:
    users = IndividualUserModel(GENERIC, KNOWN, learning=[1])
    tensors = users.tensors()
    assert tensors["user_ids"].tolist() == [1, 4, 9]
    again = individual_from_tensors(tensors, [9], torch.device("cpu")).tensors()
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)


def test_without_users_the_offsets_are_empty() -> None:
    tensors = IndividualUserModel(GENERIC, {}, ()).tensors()
    assert tensors["offsets"].shape == (0, 2, 3)
    assert individual_from_tensors(tensors, (), torch.device("cpu")).vectors().personal == {}


def test_words_prefix_is_word_embeddings_cut_and_repeated(base) -> None:
    ids = base.tokenizer.encode("Be kind.", add_special_tokens=False)
    weight = base.model.get_input_embeddings().weight
    prefix = words_prefix(base.model, base.tokenizer, "Be kind.", len(ids) + 1)
    assert torch.equal(prefix, weight[[*ids, ids[0]]])
    assert torch.equal(words_prefix(base.model, base.tokenizer, "Be kind.", 1), weight[ids[:1]])


def test_words_prefix_refuses_no_words(base) -> None:
    with pytest.raises(ValueError, match="no token"):
        words_prefix(base.model, base.tokenizer, "", 4)
