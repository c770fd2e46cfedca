"""The contract of every user model, and what is each one's own."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.trainer.conftest import CONFIG, prompt
from trainer.batching import Row
from trainer.cluster_users import clusters_near
from trainer.config import UserModelKind
from trainer.prompting import PromptFormat, embed
from trainer.scoring import response_logps
from trainer.user_models import UserModel, initial_users, users_from_tensors
from trainer.user_vectors import served_vectors

CPU = torch.device("cpu")
GENERIC = torch.arange(6.0).reshape(2, 3) / 7
CLUSTERS = torch.stack([GENERIC, GENERIC + 1, GENERIC - 2, GENERIC * 3])
USERS = torch.tensor([4, 9])
KEPT: dict[UserModelKind, dict[str, Tensor]] = {
    "individual": {
        "generic": GENERIC,
        "user_ids": USERS,
        "offsets": torch.stack([torch.full((2, 3), 0.3), torch.full((2, 3), -0.1)]),
    },
    "cluster": {
        "clusters": CLUSTERS,
        "user_ids": USERS,
        "weights": torch.tensor([[0.5, -1.0, 2.0, 0.0], [0.0, 0.1, 0.2, 0.3]]),
    },
    "styled": {
        "generic": GENERIC,
        "directions": CLUSTERS - 1,
        "user_ids": USERS,
        "shares": torch.tensor([[0.0, 0.7, 0.2, 0.0]] * 2),
        "offsets": torch.stack([torch.full((2, 3), 0.3), torch.full((2, 3), -0.1)]),
    },
}
OWN = {"individual": "offsets", "cluster": "weights", "styled": "offsets"}
SHARED = {
    "individual": {"generic"},
    "cluster": {"clusters"},
    "styled": {"generic", "directions"},
}


@pytest.fixture(params=["individual", "cluster", "styled"])
def kind(request: pytest.FixtureRequest) -> UserModelKind:
    found: UserModelKind = request.param
    return found


def make(kind: UserModelKind, learning: Iterable[int]) -> UserModel:
    """Users 4 and 9 are known."""
    return users_from_tensors(kind, KEPT[kind], learning, CPU)


def test_a_new_user_is_exactly_the_generic_user(kind: UserModelKind) -> None:
    users = make(kind, [5])
    assert torch.equal(users.prefix(5), users.prefix(None))
    assert torch.equal(users.prefix(12345), users.prefix(None))
    vectors = users.vectors()
    assert torch.equal(vectors.vector(5), vectors.generic)
    assert not torch.equal(vectors.vector(4), vectors.generic)


def test_without_what_was_learnt_only_styles_tell_users_apart(kind: UserModelKind) -> None:
    users = make(kind, [4])
    assert torch.equal(users.unlearnt(12345), users.prefix(None))
    assert torch.equal(users.unlearnt(4), users.unlearnt(9))
    assert torch.equal(users.unlearnt(4), users.prefix(None)) is (kind != "styled")
    assert not torch.equal(users.unlearnt(4), users.prefix(4))
    users.unlearn(4)
    assert torch.equal(users.unlearnt(4), users.prefix(4))
    assert not torch.equal(users.unlearnt(9), users.prefix(9))


def test_what_is_served_is_what_was_trained_bit_for_bit(kind: UserModelKind) -> None:
    users = make(kind, [4])
    served = served_vectors(users.tensors())
    for user in (None, 4, 9, 77):
        assert torch.equal(users.prefix(user), served.vector(user))
        assert torch.equal(users.prefix(user), users.vectors().vector(user))


def test_only_learning_users_have_parameters(kind: UserModelKind) -> None:
    users = make(kind, [9, 2, 9])
    assert set(users.own_parameters()) == {"user.2", "user.9"}
    assert set(users.shared_parameters()) == SHARED[kind]


def test_a_user_outside_the_batch_gets_no_gradient_and_does_not_drift_by_one_bit(
    kind: UserModelKind,
) -> None:
    users = make(kind, [4, 9])
    own = users.own_parameters()
    parameters = [*users.shared_parameters().values(), *own.values()]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.0)
    for user in (4, 9, 9):  # user 4 has momentum from the first step
        optimizer.zero_grad()
        before = users.tensors()[OWN[kind]]
        users.prefix(user).square().sum().backward()
        other = {4: 9, 9: 4}[user]
        assert own[f"user.{other}"].grad is None
        optimizer.step()
        after = users.tensors()[OWN[kind]]
        row = {4: 0, 9: 1}
        assert torch.equal(before[row[other]], after[row[other]])
        assert not torch.equal(before[row[user]], after[row[user]])
    assert optimizer.state[own["user.4"]]["step"].item() == 1
    assert optimizer.state[own["user.9"]]["step"].item() == 2


def test_tensors_round_trip_bit_for_bit(kind: UserModelKind) -> None:
    tensors = make(kind, [1]).tensors()
    assert tensors["user_ids"].tolist() == [1, 4, 9]
    again = users_from_tensors(kind, tensors, [9], CPU).tensors()
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)


def test_nobody_is_known_at_the_start(kind: UserModelKind, base) -> None:
    config = replace(CONFIG, user_model=kind, clusters=3)
    directions = torch.ones(2, CONFIG.prefix_tokens, 32)
    users = initial_users(base.model, base.tokenizer, config, directions)
    tensors = users.tensors()
    assert len(tensors[OWN[kind]]) == len(tensors["user_ids"]) == 0
    assert users_from_tensors(kind, tensors, (), CPU).vectors().personal == {}
    again = initial_users(base.model, base.tokenizer, config, directions).tensors()
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)


def test_without_words_e0_is_the_system_message_the_model_sends_of_itself(base) -> None:
    """The embedded model's own has 16 tokens: with 16 places e₀ is the base model.

    What the model reads is the same, bit for bit; what it computes of that side by side may differ
    in the last bits, as products are rounded otherwise at another place.
    """
    text = PromptFormat(base.tokenizer, 4).own_system_text()
    assert text == "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    config = replace(CONFIG, prefix_init_text="", prefix_tokens=16)
    generic = initial_users(base.model, base.tokenizer, config).prefix(None)
    prompts = PromptFormat(base.tokenizer, 16)
    behind, plain = (prompts.encode(prompt("Hi"), with_prefix=given) for given in (True, False))
    words = base.model.get_input_embeddings()
    read = embed(words, torch.tensor([behind.token_ids]), [behind.prefix_start], [generic])
    assert torch.equal(read, words(torch.tensor([plain.token_ids])))
    rows = [Row(encoded, (9, 8, 7)) for encoded in (behind, plain)]
    with torch.no_grad():
        logps = response_logps(base.model, rows, [generic, None], max_tokens=1000)
    assert float(logps[0]) == pytest.approx(float(logps[1]), abs=1e-3)


def test_a_template_without_a_system_message_of_its_own_leaves_words(base) -> None:
    plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = plain
    assert PromptFormat(tokenizer, 4).own_system_text() == ""
    users = initial_users(base.model, tokenizer, replace(CONFIG, prefix_init_text=""))
    ids = tokenizer.encode("You are a helpful and friendly", add_special_tokens=False)
    assert torch.equal(users.prefix(None), base.model.get_input_embeddings().weight[ids[:4]])


def test_an_individual_vector_is_generic_plus_offset() -> None:
    users = make("individual", [4])
    offsets = KEPT["individual"]["offsets"]
    assert torch.equal(users.prefix(4), GENERIC + offsets[0])
    assert torch.equal(users.prefix(9), GENERIC + offsets[1])


def test_an_individual_start_is_word_embeddings_cut_and_repeated(base) -> None:
    ids = base.tokenizer.encode("Be kind.", add_special_tokens=False)
    weight = base.model.get_input_embeddings().weight
    for count, expected in ((len(ids) + 1, [*ids, ids[0]]), (1, ids[:1])):
        config = replace(CONFIG, prefix_init_text="Be kind.", prefix_tokens=count)
        generic = initial_users(base.model, base.tokenizer, config).prefix(None)
        assert torch.equal(generic, weight[expected])


def test_a_cluster_vector_is_a_weighted_mean_by_hand() -> None:
    # Weights (ln 3, 0) of two prefixes: softmax (3/4, 1/4).
    tensors = {
        "clusters": torch.tensor([[[4.0, 0.0]], [[0.0, 8.0]]]),
        "user_ids": torch.tensor([6]),
        "weights": torch.tensor([[1.0986123, 0.0]]),
    }
    users = users_from_tensors("cluster", tensors, [], CPU)
    assert users.prefix(6).tolist() == [pytest.approx([3.0, 2.0])]
    assert users.prefix(None).tolist() == [pytest.approx([2.0, 4.0])]  # the mean


def test_clusters_start_from_the_nearest_words_none_dealt_twice() -> None:
    angles = torch.arange(12.0) / 10
    table = torch.stack([angles.cos(), angles.sin()], dim=1)  # words on an arc, neighbours in order
    clusters = clusters_near(table, [0, 11, 0], 3, seed=1)
    assert clusters.shape == (3, 3, 2)
    for place, nearest in enumerate(([0, 1, 2], [9, 10, 11], [0, 1, 2])):
        dealt = sorted(table.tolist().index(word) for word in clusters[:, place].tolist())
        assert dealt == nearest
    assert not torch.equal(clusters, clusters_near(table, [0, 11, 0], 3, seed=2))
    with pytest.raises(ValueError, match="only 12 words for 13 clusters"):
        clusters_near(table, [0], 13, seed=1)
