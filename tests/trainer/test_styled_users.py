from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import CONFIG, prompt
from trainer.directions import read_directions, write_directions
from trainer.distilling import Lesson, Schooling, distil
from trainer.language_model import LanguageModel
from trainer.prompting import PromptFormat
from trainer.styled_users import StyledUserModel, styled_from_tensors
from trainer.user_models import initial_users, users_from_tensors
from trainer.user_vectors import served_vectors, styled

GENERIC = torch.tensor([[1.0, 2.0]])
DIRECTIONS = torch.tensor([[[1.0, 0.0]], [[0.0, 10.0]]])


def test_a_vector_worked_out_by_hand() -> None:
    # 1 + Σ|w| = 6.5; shares 1.3 · (5, −0.5) / 6.5 = (1, −0.1).
    made = styled(GENERIC, torch.tensor([5.0, -0.5]), DIRECTIONS)
    assert made.tolist() == [pytest.approx([2.0, 1.0])]


def test_who_is_new_is_the_generic_user_bit_for_bit() -> None:
    users = StyledUserModel(GENERIC, DIRECTIONS, {}, [7])
    assert torch.equal(users.prefix(7), users.prefix(None))
    assert users.prefix(8) is users.prefix(None)


def test_a_user_learns_weights_and_the_served_vector_is_the_trained_one() -> None:
    users = StyledUserModel(GENERIC, DIRECTIONS, {3: torch.tensor([1.0, 1.0])}, [7])
    users.prefix(7).sum().backward()
    own = users.own_parameters()["user.7"]
    assert own.grad is not None
    assert own.grad.tolist() == pytest.approx([1.3, 13.0])
    with torch.no_grad():
        own.add_(torch.tensor([0.5, 0.25]))
    tensors = users.tensors()
    assert tensors["user_ids"].tolist() == [3, 7]
    served = served_vectors(tensors)
    for user in (None, 3, 7, 8):
        assert torch.equal(served.vector(user), users.prefix(user).detach())
    again = styled_from_tensors(tensors, [3], torch.device("cpu"))
    assert all(torch.equal(tensors[name], again.tensors()[name]) for name in tensors)


def test_without_directions_for_the_model_there_is_no_styled_user_model(
    base: LanguageModel,
) -> None:
    config = replace(CONFIG, user_model="styled")
    with pytest.raises(ValueError, match="style directions"):
        initial_users(base.model, base.tokenizer, config)
    with pytest.raises(ValueError, match="style directions"):
        initial_users(base.model, base.tokenizer, config, torch.zeros(2, 3, 5))
    directions = torch.zeros(2, CONFIG.prefix_tokens, 32)
    users = initial_users(base.model, base.tokenizer, config, directions)
    again = users_from_tensors("styled", users.tensors(), [1], base.device)
    assert torch.equal(again.prefix(1), users.prefix(None))


def test_directions_are_found_by_the_model_they_were_made_for(tmp_path: Path) -> None:
    directions = torch.randn(2, 3, 4).half().float()
    identity, other = "a" * 64, "a" * 16 + "b" * 48
    assert read_directions(tmp_path, identity) is None
    path = write_directions(tmp_path, directions, ["brief", "warm"], identity)
    found = read_directions(tmp_path, identity)
    assert found is not None
    assert torch.equal(found, directions)
    with pytest.raises(ValueError, match="another base model"):
        read_directions(tmp_path, other)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match="make it again"):
        read_directions(tmp_path, identity)


def test_a_prefix_learns_to_answer_as_with_the_wish(base: LanguageModel) -> None:
    prompts = PromptFormat(base.tokenizer, CONFIG.prefix_tokens)
    lessons = [
        Lesson(prompt("Why is the sky blue? Answer as a list."), prompt("Why is the sky blue?")),
        Lesson(prompt("What is tea? Answer as a list."), prompt("What is tea?")),
    ]
    start = initial_users(base.model, base.tokenizer, CONFIG).prefix(None).detach()
    schooling = Schooling(epochs=12, learning_rate=0.05, new_tokens=8)
    before = [parameter.clone() for parameter in base.model.parameters()]
    prefix, curve = distil(base, prompts, lessons, start, schooling)
    assert prefix.shape == start.shape
    assert curve[-1] < 0.7 * curve[0]
    assert all(torch.equal(*pair) for pair in zip(before, base.model.parameters(), strict=True))
    assert torch.equal(prefix, distil(base, prompts, lessons, start, schooling)[0])
