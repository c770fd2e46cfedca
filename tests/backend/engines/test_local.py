"""The local engine against transformers and PEFT themselves, and what only it can do wrong."""

from __future__ import annotations

import copy
import gc
import threading
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from backend.engines.base import (
    Condition,
    EngineClosed,
    EngineFailed,
    Message,
    Priority,
    VersionRef,
)
from backend.engines.calls import Row
from backend.engines.local import LocalEngine
from tests.backend.engines.making import USERS, greedy, messages_of, write_random_version
from trainer.artifacts import load_version
from trainer.language_model import LanguageModel
from trainer.prompting import EncodedPrompt, PromptFormat, embed

WAIT_S = 240.0
AHEAD = Priority.PREFETCH
PROMPTS = (
    "How do I start running?",
    "Name three rivers in Europe and say one thing about each of them, please.",
    "Tell me a joke.",
)


@pytest.fixture
def version(tiny: LanguageModel, tmp_path: Path) -> VersionRef:
    write_random_version(tiny, tmp_path / "version", seed=5)
    return VersionRef(1, tmp_path / "version")


@pytest.fixture
def engine(tiny: LanguageModel, version: VersionRef) -> Iterator[LocalEngine]:
    engine = LocalEngine(tiny, max_batch=8, threads=1)
    engine.swap(version)
    yield engine
    engine.close()


def unmerged(model: PreTrainedModel, version: Path) -> PeftModel:
    """PEFT's own model of a version, LoRA beside the weights."""
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 for a name it has deprecated.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        return PeftModel.from_pretrained(model, version / "adapter")


def generated_by(
    model: Any,  # `generate` is typed as a tensor
    base: LanguageModel,
    prompt: EncodedPrompt,
    prefix: Tensor | None,
    tokens: int,
) -> tuple[int, ...]:
    """One prompt alone through `generate(inputs_embeds=…)`, greedily."""
    ids = torch.tensor([prompt.token_ids])
    embeds = embed(base.model.get_input_embeddings(), ids, [prompt.prefix_start], [prefix])
    made = model.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=2,
    )
    return tuple(made[0].tolist())


def check_against_peft(base: LanguageModel, path: Path, tokens: int) -> None:
    """Every user, generic and base, several prompts each, in shared batches."""
    version = load_version(path, base_identity=base.identity)
    prompts = PromptFormat(base.tokenizer, version.config.prefix_tokens)
    reference = copy.deepcopy(base.model)
    expected: dict[tuple[str, Condition, int | None], tuple[int, ...]] = {}
    for text in PROMPTS:
        prompt = prompts.encode(messages_of(text), with_prefix=False)
        made = generated_by(reference, base, prompt, None, tokens)
        expected[text, Condition.BASE, None] = made
    adapted = unmerged(reference, path)
    for text in PROMPTS:
        prompt = prompts.encode(messages_of(text), with_prefix=True)
        for user in (*USERS, None):
            condition = Condition.GENERIC if user is None else Condition.PERSONAL
            vector = version.vectors.vector(user)
            expected[text, condition, user] = generated_by(adapted, base, prompt, vector, tokens)
    engine = LocalEngine(base, max_batch=8, threads=torch.get_num_threads())
    try:
        engine.swap(VersionRef(1, path))
        calls = [engine.generate([greedy(*key, tokens)]) for key in expected]
        served = [call.result(WAIT_S)[0].token_ids for call in calls]
    finally:
        engine.close()
    assert served == list(expected.values())
    assert len(set(served)) > 2 * len(PROMPTS), "users and adapter make a difference"


def test_greedy_tokens_are_those_of_peft_and_transformers(
    tiny: LanguageModel, version: VersionRef
) -> None:
    check_against_peft(tiny, version.path, tokens=40)


@pytest.mark.embedded
def test_the_same_on_the_embedded_model(embedded: LanguageModel, tmp_path: Path) -> None:
    write_random_version(embedded, tmp_path / "version", seed=5, adapter_size=0.01, offset_size=1.0)
    check_against_peft(embedded, tmp_path / "version", tokens=20)


@pytest.mark.parametrize("condition", list(Condition))
def test_scores_equal_a_plain_forward(
    tiny: LanguageModel, version: VersionRef, condition: Condition
) -> None:
    responses = [(50, 60, 70, 2), (9, 9), (1234,)]
    tensors = load_version(version.path, base_identity=tiny.identity)
    prompts = PromptFormat(tiny.tokenizer, tensors.config.prefix_tokens)
    model: nn.Module = copy.deepcopy(tiny.model)
    prefix: Tensor | None = None
    if condition is not Condition.BASE:
        model = unmerged(copy.deepcopy(tiny.model), version.path)
        prefix = tensors.vectors.vector(3 if condition is Condition.PERSONAL else None)
    prompt = prompts.encode(messages_of(PROMPTS[1]), with_prefix=prefix is not None)
    engine = LocalEngine(tiny, threads=1)
    engine.swap(version)
    scores = engine.score(messages_of(PROMPTS[1]), responses, condition, 3)
    engine.close()
    for response, score in zip(responses, scores, strict=True):
        ids = torch.tensor([[*prompt.token_ids, *response]])
        embeds = embed(tiny.model.get_input_embeddings(), ids, [prompt.prefix_start], [prefix])
        with torch.no_grad():
            logits = model(inputs_embeds=embeds).logits[0, len(prompt.token_ids) - 1 : -1]
        expected = logits.log_softmax(-1)[range(len(response)), list(response)].sum()
        assert score == pytest.approx(float(expected), abs=1e-3)


def test_a_pair_is_read_once_and_users_decode_side_by_side(
    engine: LocalEngine, tiny: LanguageModel
) -> None:
    seen: list[tuple[int, int]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows, tokens, _ = inputs[0].shape
        seen.append((rows, tokens))

    hook = tiny.model.model.layers[0].input_layernorm.register_forward_pre_hook(note)
    pair = [greedy(PROMPTS[0], Condition.PERSONAL, 1, tokens=3)] * 2
    engine.generate(pair).result(WAIT_S)
    (prefill, *steps) = seen
    assert prefill[0] == 1, "one reading for both responses"
    assert steps == [(2, 1)] * 2
    seen.clear()
    users = [greedy(PROMPTS[0], Condition.PERSONAL, user, tokens=3) for user in USERS]
    engine.generate(users).result(WAIT_S)
    hook.remove()
    *prefills, first, second = seen
    assert [rows for rows, _ in prefills] == [1] * len(USERS), "each behind a vector of its own"
    assert first == second == (len(USERS), 1)


def test_a_failing_model_ends_its_calls_and_the_engine_goes_on(
    engine: LocalEngine, tiny: LanguageModel
) -> None:
    expected = engine.generate([greedy(PROMPTS[0], Condition.GENERIC)]).result(WAIT_S)

    def out_of_memory(module: nn.Module, inputs: object) -> None:
        raise torch.OutOfMemoryError("no memory left")

    hook = tiny.model.lm_head.register_forward_pre_hook(out_of_memory)
    failing = engine.generate([greedy(PROMPTS[0], Condition.GENERIC)])
    with pytest.raises(EngineFailed, match="no memory left"):
        failing.result(WAIT_S)
    hook.remove()
    after = engine.generate([greedy(PROMPTS[0], Condition.GENERIC)]).result(WAIT_S)
    assert after[0].token_ids == expected[0].token_ids


def test_a_fault_nobody_expected_leaves_nobody_waiting(
    engine: LocalEngine, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: ended.append(args.exc_type))

    def fault(module: nn.Module, inputs: object) -> None:
        raise LookupError

    request = greedy(PROMPTS[0], Condition.GENERIC)
    waiting = engine.generate([request] * 8)
    next(waiting.stream())
    ahead = engine.generate([greedy(f"Say {n}.", Condition.BASE) for n in range(8)], AHEAD)
    assert engine.waits_for() is None
    tiny.model.lm_head.register_forward_pre_hook(fault)
    for generation in (waiting, ahead):
        with pytest.raises(EngineClosed):
            generation.result(WAIT_S)
    assert engine.waits_for() == "the model has stopped; the log says why"
    with pytest.raises(EngineClosed):
        engine.score(messages_of(PROMPTS[0]), [(5,)], Condition.GENERIC, None)
    engine.close()
    assert ended == [LookupError]


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_fail_the_generation(
    engine: LocalEngine, tiny: LanguageModel, number: float
) -> None:
    one = torch.tensor([7])
    hook = tiny.model.lm_head.register_forward_hook(
        lambda *args: args[-1].index_fill(-1, one, number)
    )
    failing = engine.generate([greedy(PROMPTS[0], Condition.GENERIC)])
    with pytest.raises(EngineFailed, match="not finite"):
        failing.result(WAIT_S)
    hook.remove()
    assert engine.generate([greedy(PROMPTS[0], Condition.GENERIC)]).result(WAIT_S)


def test_a_prompt_too_long_for_the_model_is_refused_at_once(engine: LocalEngine) -> None:
    with pytest.raises(ValueError, match="too long for the model"):
        engine.generate([greedy("word " * 600, Condition.GENERIC)])
    with pytest.raises(ValueError, match="too long for the model"):
        engine.generate([greedy(PROMPTS[0], Condition.GENERIC, tokens=500)])
    with pytest.raises(ValueError, match="too long for the model"):
        engine.score(messages_of("word " * 600), [(5,)], Condition.GENERIC, None)


def test_a_prompt_of_too_many_tokens_is_refused_though_the_model_could_read_it(
    tiny: LanguageModel, version: VersionRef
) -> None:
    tiny.model.config.max_position_embeddings = 8192
    engine = LocalEngine(tiny, threads=1)
    engine.swap(version)
    with pytest.raises(ValueError, match="6030 tokens, at most 2048"):
        engine.generate([greedy("🦊" * 2000, Condition.GENERIC)])
    turns: list[Message] = [
        {"role": role, "content": "word " * 400}
        for role in ("user", "assistant", "user", "assistant", "user")
    ]
    request = replace(greedy("", Condition.GENERIC), messages=tuple(turns))
    with pytest.raises(ValueError, match="at most 2048"):
        engine.generate([request])
    engine.score(turns, [(5,)], Condition.GENERIC, None)  # what was asked before is scored
    plain = (PROMPTS[1] * 30)[:2000]
    assert engine.generate([greedy(plain, Condition.GENERIC, tokens=2)]).result(WAIT_S)
    engine.close()


def test_the_end_of_turn_token_ends_a_response(engine: LocalEngine, tiny: LanguageModel) -> None:
    request = greedy(PROMPTS[0], Condition.GENERIC, tokens=12)
    whole = engine.generate([request]).result(WAIT_S)[0]
    engine.close()
    end = whole.token_ids[5]
    assert end not in whole.token_ids[:5]
    tiny.model.generation_config.eos_token_id = end
    ending = LocalEngine(tiny, threads=1)
    ending.swap(engine.live_version or pytest.fail("no version"))
    made = ending.generate([request]).result(WAIT_S)[0]
    ending.close()
    assert made.ended
    assert made.token_ids == whole.token_ids[:6]


def test_streamed_text_never_shows_half_a_character(tiny: LanguageModel) -> None:
    words = "naïve 👩‍👩‍👧 日本語 ok"
    ids = tiny.tokenizer.encode(words, add_special_tokens=False)
    row = Row(
        request=greedy("x", Condition.BASE),
        prompt=EncodedPrompt((1,), None),
        decode=lambda ids: str(tiny.tokenizer.decode(list(ids), skip_special_tokens=True)),
        stop_ids=frozenset({2}),
    )
    shown = []
    for token in (*ids, 2):
        row.token_ids.append(token)
        shown.append(row.text)
    assert all(words.startswith(text) for text in shown)
    assert shown[-1] == words
    assert any("\ufffd" in str(tiny.tokenizer.decode(ids[:n])) for n in range(len(ids)))


def test_the_base_weights_are_back_after_closing(tiny: LanguageModel, version: VersionRef) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    engine = LocalEngine(tiny, threads=1)
    engine.swap(version)
    engine.generate([greedy(PROMPTS[0], Condition.PERSONAL, 1, tokens=3)]).result(WAIT_S)
    engine.close()
    after = tiny.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_old_versions_are_let_go(engine: LocalEngine, version: VersionRef) -> None:
    request = greedy(PROMPTS[0], Condition.GENERIC, tokens=3)
    engine.generate([request]).result(WAIT_S)
    live = engine._live
    assert live is not None
    merged = [weakref.ref(tensor) for tensor in live.weights.values()]
    del live
    engine.swap(VersionRef(2, version.path))
    engine.generate([request]).result(WAIT_S)
    gc.collect()
    assert merged
    assert not any(reference() is not None for reference in merged)


def test_stats_count_what_was_done(engine: LocalEngine) -> None:
    engine.generate([greedy(PROMPTS[0], Condition.GENERIC, tokens=5)] * 2).result(WAIT_S)
    stats = engine.stats()
    assert (stats.tokens, stats.swaps, stats.waiting_calls) == (10, 1, 0)
    assert stats.steps == 5
    assert 0 < stats.last_stall_s <= stats.max_stall_s
