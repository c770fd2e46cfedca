from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.trainer.conftest import prompt
from trainer.batching import Row
from trainer.prompting import PromptFormat, embed
from trainer.scoring import check_head, response_logps


def rows_of(base, responses: list[tuple[int, ...]], with_prefix: bool) -> list[Row]:
    prompts = PromptFormat(base.tokenizer, 4)
    return [
        Row(prompts.encode(prompt("Hi " * (i + 1)), with_prefix=with_prefix), response)
        for i, response in enumerate(responses)
    ]


def plain_logp(base, row: Row, prefix: torch.Tensor | None) -> torch.Tensor:
    """One row alone, every logit: the slow and obvious way."""
    ids = torch.tensor([row.prompt.token_ids + row.response_ids])
    inputs = embed(base.model.get_input_embeddings(), ids, [row.prompt.prefix_start], [prefix])
    logits = base.model(inputs_embeds=inputs).logits[0].log_softmax(-1)
    start = len(row.prompt.token_ids)
    return sum(
        (logits[start + i - 1, token] for i, token in enumerate(row.response_ids)),
        torch.tensor(0.0),
    )


@pytest.mark.parametrize("max_tokens", [1, 80, 10_000])
def test_batched_scores_are_those_of_each_row_alone(base, max_tokens: int) -> None:
    prefix = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    rows = [
        *rows_of(base, [(9, 8, 7), (100,), (5, 6) * 6], with_prefix=True),
        *rows_of(base, [(9, 8, 7, 2)], with_prefix=False),
    ]
    prefixes = [prefix, 2 * prefix, prefix, None]
    with torch.no_grad():
        got = response_logps(base.model, rows, prefixes, max_tokens=max_tokens)
        expected = torch.stack(
            [plain_logp(base, r, p) for r, p in zip(rows, prefixes, strict=True)]
        )
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_packed_pair_has_the_scores_and_gradients_of_two_rows(base) -> None:
    """The cheapest exact step (tree mask, shared prompt) against each row alone."""
    prefix = torch.randn(4, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
    first, other = rows_of(base, [(9, 8, 7), (3, 4)], with_prefix=True)
    rows = [first, Row(first.prompt, (5, 6, 7, 8, 9)), other, Row(first.prompt, (2,))]
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])

    packed = response_logps(base.model, rows, [prefix] * 4, max_tokens=1000)
    (packed_slope,) = torch.autograd.grad((packed * weights).sum(), prefix)
    alone = torch.stack([plain_logp(base, row, prefix) for row in rows])
    (slope,) = torch.autograd.grad((alone * weights).sum(), prefix)

    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(packed_slope, slope, rtol=1e-5, atol=1e-5 * float(slope.abs().max()))


def test_gradients_reach_each_rows_own_prefix(base) -> None:
    prefixes = [torch.zeros(4, 32, requires_grad=True) for _ in range(2)]
    rows = rows_of(base, [(9, 8), (7, 6, 5)], with_prefix=True)
    response_logps(base.model, rows, prefixes, max_tokens=1000)[0].backward()
    assert prefixes[0].grad is not None
    assert prefixes[0].grad.abs().sum() > 0
    assert prefixes[1].grad is None or not prefixes[1].grad.any()


def test_no_rows_give_no_scores(base) -> None:
    assert response_logps(base.model, [], [], max_tokens=10).tolist() == []


def test_check_head_accepts_a_plain_head(base) -> None:
    check_head(base.model)


def test_check_head_refuses_a_model_that_scales_its_logits(base, monkeypatch) -> None:
    plain = base.model.forward
    monkeypatch.setattr(
        base.model, "forward", lambda **kw: SimpleNamespace(logits=0.5 * plain(**kw).logits)
    )
    with pytest.raises(ValueError, match="changes its logits"):
        check_head(base.model)
