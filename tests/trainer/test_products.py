"""Products of matrices by the kernel against those in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.kernels import Kernels

OFF = {torch.float32: 1e-6, torch.bfloat16: 3e-3}  # of its norm; rounding to bf16 alone is 1.7e-3


def some(dtype: torch.dtype, *shape: int, seed: int, across: bool = False, gap: int = 0) -> Tensor:
    """Random, perhaps as the transpose of what lies in memory, perhaps with gaps between rows."""
    noise = torch.Generator().manual_seed(seed)
    rows, columns = reversed(shape) if across else shape
    made = torch.randn(rows, columns + gap, generator=noise).to(dtype)[:, :columns]
    return made.T if across else made


def exact(parts: list[tuple[Tensor, Tensor]], bias: Tensor | None = None) -> Tensor:
    whole = sum(a.double() @ b.double() for a, b in parts)
    assert isinstance(whole, Tensor)
    return whole if bias is None else whole + bias.double()


@pytest.mark.parametrize("dtype", OFF)
@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [
        (1, 2, 1),
        (5, 6, 3),
        (6, 32, 16),
        (7, 34, 17),
        (17, 30, 33),
        (29, 96, 64),
        (31, 258, 65),
        (64, 130, 200),
    ],
)
def test_any_shape(  # noqa: PLR0917
    compiled: Kernels, rows: int, inner: int, columns: int, across: bool, dtype: torch.dtype
) -> None:
    a = some(dtype, rows, inner, seed=0, gap=2)
    b = some(dtype, inner, columns, seed=1, across=across, gap=3)
    made = compiled.quick_products([(a, b)])
    want = exact([(a, b)])
    assert made.dtype == dtype
    assert (made - want).norm() < OFF[dtype] * want.norm()


@pytest.mark.parametrize("dtype", OFF)
def test_a_sum_of_several_with_a_bias_is_rounded_once(
    compiled: Kernels, dtype: torch.dtype
) -> None:
    parts = [
        (some(dtype, 50, inner, seed=n), some(dtype, inner, 40, seed=9 + n, across=n % 2 == 1))
        for n, inner in enumerate((64, 8, 130))
    ]
    bias = some(dtype, 1, 40, seed=20)[0]
    made = compiled.quick_products(parts, bias)
    want = exact(parts, bias)
    assert (made - want).norm() < OFF[dtype] * want.norm()
    once = want.to(dtype)
    assert ((made - once).abs() <= 2 * torch.finfo(dtype).eps * want.abs() + 1e-4).all()


@pytest.mark.parametrize("dtype", OFF)
def test_a_row_does_not_depend_on_those_beside_it_nor_on_threads(
    compiled: Kernels, dtype: torch.dtype
) -> None:
    a, b = some(dtype, 601, 96, seed=0), some(dtype, 96, 80, seed=1, across=True)
    usual = torch.get_num_threads()
    made = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(compiled.quick_products([(a, b)]))
    finally:
        torch.set_num_threads(usual)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])
    for row in (0, 5, 600):
        assert torch.equal(compiled.quick_products([(a[row : row + 1], b)])[0], made[0][row])


@pytest.mark.parametrize("dtype", OFF)
def test_what_is_undefined_stays_so_and_nowhere_else(compiled: Kernels, dtype: torch.dtype) -> None:
    a, b = some(dtype, 9, 34, seed=0), some(dtype, 34, 20, seed=1)
    a[3, 33] = torch.nan
    made = compiled.quick_products([(a, b)])
    assert made[3].isnan().all()
    assert made.isnan().sum() == 20


def test_torch_makes_what_the_kernel_cannot_read(compiled: Kernels) -> None:
    odd = some(torch.bfloat16, 9, 5, seed=0), some(torch.bfloat16, 5, 8, seed=1)
    gaps = some(torch.bfloat16, 9, 8, seed=0)[:, ::2], some(torch.bfloat16, 4, 8, seed=1)
    none = torch.empty(9, 0, dtype=torch.bfloat16), torch.empty(0, 8, dtype=torch.bfloat16)
    for part in (odd, gaps, none):
        assert not compiled.makes([part])
        assert (compiled.products([part]) - exact([part])).abs().max() < 0.1
    bias = some(torch.bfloat16, 1, 8, seed=5)[0]
    made = compiled.products([odd, none, gaps], bias)
    assert (made - exact([odd, gaps], bias)).abs().max() < 0.1


def test_few_rows_large_panels_and_mixed_types_are_left_to_torch(
    compiled: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "quick_types", {torch.float32})
    a, b = some(torch.float32, 64, 8, seed=0), some(torch.float32, 8, 64, seed=1)
    deep = torch.zeros(64, 1 << 15), torch.zeros(1 << 15, 8)
    assert compiled.makes([(a, b)])
    assert not compiled.makes([(a[:9], b)])
    assert not compiled.makes([(a[:0], b)])
    assert not compiled.makes([(a, b), deep])
    assert not compiled.makes([(a, b.to(torch.bfloat16))])
    with pytest.raises(RuntimeError, match="dtype"):
        compiled.products([(a, b.to(torch.bfloat16))])


def test_types_of_the_kernel_are_those_of_the_processor(compiled: Kernels) -> None:
    parts = [(some(torch.float32, 64, 64, seed=0), some(torch.float32, 64, 64, seed=1))]
    both = compiled.products(parts), compiled.quick_products(parts)
    assert compiled.makes(parts) == (torch.float32 in compiled.quick_types)
    torch.testing.assert_close(*both, rtol=1e-5, atol=1e-5)
