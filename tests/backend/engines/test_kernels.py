"""Products of the engine's kernels."""

from __future__ import annotations

import torch

from backend.engines.kernels import Kernels


def test_a_product_of_many_rows_is_made_some_at_a_time(kernels: Kernels) -> None:
    torch.manual_seed(0)
    x, w, b = torch.randn(150, 20), torch.randn(9, 20), torch.randn(9)
    y = torch.empty(150, 9)
    kernels.linear(x.data_ptr(), w.data_ptr(), b.data_ptr(), y.data_ptr(), 150, 20, 9)
    assert torch.allclose(y, x @ w.T + b, atol=1e-5)
