from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dev.random_model import random_model
from tests.trainer.conftest import CONFIG, IDENTITY, prompt
from trainer.directions import read_directions, write_directions
from trainer.distilling import Schooling, distil
from trainer.language_model import LanguageModel
from trainer.prompting import PromptFormat
from trainer.styled_users import StyledUserModel, styled_from_tensors
from trainer.teaching import Lesson, Teaching, barred_tokens, echoes, guided
from trainer.user_models import initial_users, users_from_tensors
from trainer.user_vectors import served_vectors, styled

GENERIC = torch.tensor([[1.0, 2.0]])
DIRECTIONS = torch.tensor([[[1.0, 0.0]], [[0.0, 10.0]]])


def shares(*of_each: float) -> torch.Tensor:
    return torch.tensor(of_each)


def test_a_vector_worked_out_by_hand() -> None:
    offset = torch.tensor([[0.5, -0.5]])
    made = styled(GENERIC, DIRECTIONS, shares(1.2, 0.1), offset)
    assert made.tolist() == [pytest.approx([1 + 1.2 + 0.5, 2 + 1.0 - 0.5])]


def test_who_is_new_is_the_generic_user_bit_for_bit() -> None:
    users = StyledUserModel(GENERIC, DIRECTIONS, {}, {}, [7])
    assert torch.equal(users.prefix(7), users.prefix(None))
    assert users.prefix(8) is users.prefix(None)


def test_shares_move_the_vector_at_once_and_the_offset_is_learnt() -> None:
    known = shares(0.9, 0.05)
    offset = torch.tensor([[0.25, 0.0]])
    users = StyledUserModel(GENERIC, DIRECTIONS, {3: known, 7: known}, {3: offset}, [7])
    assert users.prefix(7).tolist() == [pytest.approx([1.9, 2.5])]
    # What choices alone said is no user's offset; user 3 has learnt one.
    assert torch.equal(users.unlearnt(7), users.prefix(7))
    assert torch.equal(users.unlearnt(3), users.prefix(7))
    assert torch.equal(users.unlearnt(8), users.prefix(None))
    users.prefix(7).sum().backward()
    own = users.own_parameters()["user.7"]
    assert own.grad is not None
    assert own.grad.tolist() == [[1.0, 1.0]]
    with torch.no_grad():
        own.add_(torch.tensor([0.5, 0.25]))
    tensors = users.tensors()
    assert tensors["user_ids"].tolist() == [3, 7]
    assert torch.equal(tensors["shares"], torch.stack([known, known]))
    served = served_vectors(tensors)
    for user in (None, 3, 7, 8):
        assert torch.equal(served.vector(user), users.prefix(user).detach())
    assert served.styles is not None
    assert torch.equal(served.styles, GENERIC + DIRECTIONS)
    again = styled_from_tensors(tensors, [3], torch.device("cpu"), {})
    assert all(torch.equal(tensors[name], again.tensors()[name]) for name in tensors)


def test_without_users_the_shares_still_say_how_many_styles_there_are() -> None:
    tensors = StyledUserModel(GENERIC, DIRECTIONS, {}, {}, []).tensors()
    assert tensors["shares"].shape == (0, 2)
    with pytest.raises(ValueError, match="the styles have changed"):
        styled_from_tensors(tensors, [7], torch.device("cpu"), {7: shares(1.0)})


def test_newer_shares_take_the_place_of_those_kept() -> None:
    users = StyledUserModel(GENERIC, DIRECTIONS, {7: shares(0.0, 0.5)}, {}, [4, 7])
    newer = {7: shares(1.0, 0.0)}
    cpu = torch.device("cpu")
    again = styled_from_tensors(users.tensors(), [4, 7], cpu, newer)
    assert again.tensors()["shares"].tolist() == [[0, 0], [1, 0]]
    assert again.prefix(7).tolist() == [[2.0, 2.0]]
    assert torch.equal(again.prefix(4), again.prefix(None))
    for wrong in (shares(1.0), shares(1.0, 0.0, 0.0), torch.ones(2, 2)):
        with pytest.raises(ValueError, match="the styles have changed"):
            styled_from_tensors(users.tensors(), [7], cpu, {7: wrong})


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


def test_the_teacher_goes_further_than_the_wish_among_what_the_wish_finds_plausible() -> None:
    wished = torch.tensor([0.5, 0.4, 0.1 * 0.49, 0.051]).log()
    plain = torch.tensor([0.25, 0.4, 0.1, 0.25]).log()
    teacher = guided(wished, plain, 2.0).exp()
    # 0.5²/0.25 = 1 and 0.4²/0.4 = 0.4; the third is not plausible; 0.051²/0.25 = 0.0104.
    assert teacher.tolist() == pytest.approx(
        [1 / 1.4104, 0.4 / 1.4104, 0, 0.0104 / 1.4104], abs=2e-3
    )
    once = guided(wished, plain, 1.0)
    assert float(once[0] - once[1]) == pytest.approx(float(wished[0] - wished[1]))


def test_a_prefix_learns_to_answer_as_with_the_wish(base: LanguageModel) -> None:
    prompts = PromptFormat(base.tokenizer, CONFIG.prefix_tokens)
    lessons = [
        Lesson(prompt("Why is the sky blue? Answer as a list."), prompt("Why is the sky blue?")),
        Lesson(prompt("What is tea? Answer as a list."), prompt("What is tea?")),
    ]
    start = initial_users(base.model, base.tokenizer, CONFIG).prefix(None).detach()
    schooling = Schooling(epochs=24, learning_rate=0.05, teaching=Teaching(new_tokens=8, drafts=2))
    before = [parameter.clone() for parameter in base.model.parameters()]
    prefix, curve = distil(base, prompts, lessons, start, schooling)
    assert prefix.shape == start.shape
    assert curve[-1] < 0.8 * curve[0]
    assert all(torch.equal(*pair) for pair in zip(before, base.model.parameters(), strict=True))
    assert torch.equal(prefix, distil(base, prompts, lessons, start, schooling)[0])


def test_what_only_the_wish_brings_in_is_barred_and_the_questions_words_are_not(
    base: LanguageModel,
) -> None:
    wished = prompt("How do scientists work? Answer like a scientist, in technical terms.")
    barred = echoes(base.tokenizer, Lesson(wished, prompt("How do scientists work?")))
    assert barred.shape == (len(base.tokenizer),)

    def bars(word: str) -> bool:
        return bool(barred[base.tokenizer.encode(word, add_special_tokens=False)[0]])

    assert bars(" technical")
    assert bars(" Technical")
    assert bars(" technically")
    assert not bars(" scientist")
    assert not bars(" terms")
    assert not bars(" water")


def test_a_head_wider_than_the_tokenizer_teaches_only_tokens_that_there_are(
    base: LanguageModel,
) -> None:
    words = len(base.tokenizer)
    wide = random_model(base.tokenizer, IDENTITY, vocab_size=words + 7)
    lessons = [
        Lesson(prompt("Why is the sky blue? Answer as a list."), prompt("Why is the sky blue?")),
        Lesson(prompt("What is tea? Answer in simple words."), prompt("What is tea?")),
    ]
    barred = barred_tokens(wide, lessons[1])
    assert torch.equal(barred[:words], echoes(base.tokenizer, lessons[1]))
    assert barred[words:].tolist() == [True] * 7
    prompts = PromptFormat(wide.tokenizer, CONFIG.prefix_tokens)
    start = initial_users(wide.model, wide.tokenizer, CONFIG).prefix(None).detach()
    schooling = Schooling(epochs=1, teaching=Teaching(new_tokens=4, drafts=1))
    prefix, _ = distil(wide, prompts, lessons, start, schooling)
    assert prefix.shape == start.shape
