from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainer.conftest import opposed_pairs, prompt
from trainer.decoding import DecodingBatch
from trainer.measuring import probe_messages
from trainer.own_pairs import most_touched
from trainer.probes import (
    BaseTexts,
    Probe,
    ProbeText,
    read_texts,
    text_drops,
    text_figures,
    write_texts,
)
from trainer.prompting import PromptFormat, embed
from trainer.scoring import response_logps

LONG = prompt("Please explain to me in many words why the sky is blue.")
SHORT = prompt("Tea?")


def test_text_figures_by_hand() -> None:
    texts = [
        ProbeText((1, 2, 3, 4, 1, 2, 3, 4), "a b", 8.0),  # 5 4-grams, 1234 twice: 1 repeated
        ProbeText((5, 6), "c", 6.0),  # no 4-gram
        ProbeText((), "", 0.0),
        ProbeText((1, 2, 3, 4), "a", 2.0),  # said before, in another text
    ]
    figures = text_figures(texts)
    assert figures.mean_tokens == pytest.approx(14 / 4)
    assert figures.nll_nats == pytest.approx(16 / 14)
    assert figures.repetition == pytest.approx(2 / 6)
    assert figures.empty == 1
    assert figures.texts == 4


def test_without_a_token_the_likelihood_is_undefined() -> None:
    assert (
        text_figures([ProbeText((), "", 0.0)]).nll_nats
        != text_figures([ProbeText((), "", 0.0)]).nll_nats
    )


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_rows_that_take_the_places_of_others_write_what_they_write_beside_all(
    base, at_once
) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    probes = [
        Probe(prompt, torch.full((4, 32), n / 9)) for n in range(3) for prompt in (LONG, SHORT)
    ]
    wanted = write_texts(base, prompts, probes, new_tokens=6, seed=3)
    assert len(set(wanted)) == len(probes)
    made = write_texts(base, prompts, probes, new_tokens=6, seed=3, at_once=at_once)
    assert made == wanted


def test_equal_probes_are_read_once_and_write_what_they_write_apart(
    base, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    one, other = Probe(LONG, torch.zeros(4, 32)), Probe(LONG, torch.ones(4, 32))
    again = Probe(LONG, torch.zeros(4, 32))
    read: list[int] = []
    join = DecodingBatch.join

    def counted(batch: DecodingBatch, embedded: Any, copies: Any) -> None:
        read.extend(copies)
        join(batch, embedded, copies)

    monkeypatch.setattr(DecodingBatch, "join", counted)
    together = write_texts(base, prompts, [one, again, other], new_tokens=6, seed=3)
    assert read == [2, 1]
    apart = write_texts(base, prompts, [one, again, other], new_tokens=6, seed=3, at_once=1)
    assert together == apart
    assert together[0] != together[1], "each draws for itself"


def test_the_seed_fixes_the_texts_and_the_process_rng_is_left_alone(base) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    probes = [Probe(LONG, torch.zeros(4, 32)), Probe(SHORT, None)]
    state = torch.random.get_rng_state()
    one = write_texts(base, prompts, probes, new_tokens=6, seed=3)
    again = write_texts(base, prompts, probes, new_tokens=6, seed=3)
    other = write_texts(base, prompts, probes, new_tokens=6, seed=4)
    assert one == again
    assert one != other
    assert all(len(ids) <= 6 for ids in one)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_row_of_a_padded_batch_continues_its_own_prompt_and_vector(base, monkeypatch) -> None:
    """Greedy, so that the batch can be compared with each row alone, without padding or cache."""
    prompts = PromptFormat(base.tokenizer, 4)
    prefix = torch.randn(4, 32, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr("trainer.probes._TEMPERATURE", 0.0)
    probes = [Probe(LONG, prefix), Probe(SHORT, prefix), Probe(SHORT, None)]
    got = write_texts(base, prompts, probes, new_tokens=5, seed=0)
    for probe, ids in zip(probes, got, strict=True):
        encoded = prompts.encode(probe.messages, with_prefix=probe.prefix is not None)
        expected: list[int] = []
        for _ in range(5):
            tokens = torch.tensor([[*encoded.token_ids, *expected]])
            inputs = embed(
                base.model.get_input_embeddings(),
                tokens,
                [encoded.prefix_start],
                [probe.prefix],
            )
            with torch.no_grad():
                expected.append(int(base.model(inputs_embeds=inputs).logits[0, -1].argmax()))
        assert ids == tuple(expected)


def test_texts_are_read_by_the_base_model_without_a_vector(base) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    text, empty = read_texts(base, prompts, [LONG, SHORT], [(9, 8, 7), ()], max_tokens=1000)
    from trainer.batching import Row

    row = Row(prompts.encode(LONG, with_prefix=False), (9, 8, 7))
    with torch.no_grad():
        expected = -response_logps(base.model, [row], [None], max_tokens=1000)
    assert text.nll_nats == pytest.approx(expected.item(), rel=1e-5)
    assert text.text == base.tokenizer.decode([9, 8, 7], skip_special_tokens=True).strip()
    assert (empty.text, empty.nll_nats) == ("", 0.0)


def test_a_drop_is_the_difference_of_log_probs_of_the_same_text(base) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    (text, _) = read_texts(base, prompts, [LONG, SHORT], [(9, 8, 7), ()], max_tokens=1000)
    nothing = ProbeText((), "", 0.0)
    prefix = torch.randn(4, 32, generator=torch.Generator().manual_seed(2))
    probes = [Probe(LONG, prefix), Probe(SHORT, prefix), Probe(LONG, None)]
    drops = text_drops(base, prompts, probes, [text, nothing, text], max_tokens=1000)
    from trainer.batching import Row

    row = Row(prompts.encode(LONG, with_prefix=True), (9, 8, 7))
    with torch.no_grad():
        logp = response_logps(base.model, [row], [prefix], max_tokens=1000)
    assert drops[0] == pytest.approx((-text.nll_nats - logp.item()) / 3, rel=1e-4)
    assert drops[1] == 0.0
    assert drops[2] == pytest.approx(0.0, abs=1e-5)  # the base model itself


def test_base_texts_are_written_once_per_process(base, monkeypatch) -> None:
    prompts = PromptFormat(base.tokenizer, 4)
    calls: list[object] = []

    def counted(*arguments: object, **options: Any) -> list[tuple[int, ...]]:
        calls.append(arguments)
        return write_texts(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("trainer.probes.write_texts", counted)
    kept = BaseTexts(capacity=1)

    def get(new_tokens: int) -> list[ProbeText]:
        return kept.get(base, prompts, [LONG], new_tokens=new_tokens, max_tokens=1000)

    first = get(4)
    assert get(4) == first
    assert len(calls) == 1
    get(5)
    assert get(4) == first  # pushed out, written again, the same
    assert len(calls) == 3


def test_the_users_with_most_pairs_are_probed(tokenizer) -> None:
    pairs = opposed_pairs(tokenizer)
    assert most_touched([*pairs, pairs[1]], most=1) == [2]
    assert most_touched(pairs, most=5) == [1, 2]


def test_without_probe_prompts_the_pairs_own_are_taken(tokenizer) -> None:
    pairs = opposed_pairs(tokenizer)
    assert probe_messages((LONG, SHORT, LONG), pairs, most=3) == [LONG, SHORT]
    assert probe_messages((), pairs, most=2) == [pairs[0].messages, pairs[2].messages]
