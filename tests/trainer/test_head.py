"""A frozen head's log-probs by hand and against autograd, with kernels and without."""

from __future__ import annotations

import math

import pytest
import torch

from trainer import head
from trainer.head import token_logps


def test_token_logps_by_hand() -> None:
    # Logits (0, ln 3) give probabilities 1/4 and 3/4.
    hidden = torch.tensor([[1.0], [1.0]])
    weight = torch.tensor([[0.0], [math.log(3)]])
    got = token_logps(hidden, weight, None, torch.tensor([0, 1]))
    assert got.tolist() == pytest.approx([math.log(0.25), math.log(0.75)])


@pytest.mark.parametrize("biased", [False, True])
def test_token_logps_and_its_gradient_agree_with_autograd(biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator).requires_grad_()
    weight = torch.randn(11, 5, generator=generator)
    bias = torch.randn(11, generator=generator) if biased else None
    labels = torch.randint(11, (7,), generator=generator)
    weights = torch.randn(7, generator=generator)

    plain = torch.nn.functional.linear(hidden, weight, bias).log_softmax(-1)
    expected = plain.gather(1, labels[:, None]).squeeze(1)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), hidden)
    got = token_logps(hidden, weight, bias, labels, chunk=3)
    (got_grad,) = torch.autograd.grad((got * weights).sum(), hidden)

    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(got_grad, expected_grad)
