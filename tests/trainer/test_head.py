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


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("dtype", "off"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)
def test_token_logps_and_its_gradient_agree_with_autograd(
    monkeypatch: pytest.MonkeyPatch, compiled: bool, biased: bool, dtype: torch.dtype, off: float
) -> None:
    if not compiled:
        monkeypatch.setattr(head, "kernels", lambda: None)
    for name, size in (("_WORDS", 40), ("_POSITIONS", 3), ("_POSITIONS_OF_WHOLE_ROWS", 3)):
        monkeypatch.setattr(head, name, size)
    generator = torch.Generator().manual_seed(0)
    hidden = (2 * torch.randn(7, 5, generator=generator)).to(dtype).requires_grad_()
    weight = torch.randn(131, 5, generator=generator).to(dtype)
    bias = torch.randn(131, generator=generator).to(dtype) if biased else None
    labels = torch.randint(131, (7,), generator=generator)
    weights = torch.randn(7, generator=generator, dtype=torch.float64)

    exact = hidden.detach().double().requires_grad_()
    plain = torch.nn.functional.linear(
        exact, weight.double(), None if bias is None else bias.double()
    ).log_softmax(-1)
    expected = plain.gather(1, labels[:, None]).squeeze(1)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), exact)
    got = token_logps(hidden, weight, bias, labels)
    (got_grad,) = torch.autograd.grad((got * weights).sum(), hidden)

    assert (got - expected).norm() < off * expected.norm()
    assert (got_grad - expected_grad).norm() < off * expected_grad.norm()
    assert torch.equal(token_logps(hidden.detach(), weight, bias, labels), got)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_is_not_passed_over(broken: float) -> None:
    weight = torch.ones(40, 1)
    weight[17] = broken
    got = token_logps(torch.ones(1, 1), weight, None, torch.tensor([3]))
    assert not got.isfinite().any()
