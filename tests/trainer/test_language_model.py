"""What `auto` means where there is no such device to ask."""

from __future__ import annotations

import pytest
import torch

from trainer import language_model


@pytest.mark.parametrize(("native", "expected"), [(False, torch.float32), (True, torch.bfloat16)])
def test_a_gpu_that_only_emulates_bfloat16_gets_float32(
    monkeypatch: pytest.MonkeyPatch, *, native: bool, expected: torch.dtype
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert language_model._dtype("auto", torch.device("cuda")) == expected
