"""In bfloat16, on the real model: what else is in the batch changes no token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.engines.base import Condition, Sampling, VersionRef
from backend.engines.kernels import compiled_kernels
from backend.engines.local import LocalEngine
from tests.backend.engines.making import USERS, greedy, write_random_version
from tests.backend.engines.test_local import PROMPTS, WAIT_S
from trainer.language_model import load_language_model


@pytest.mark.embedded
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_in_bfloat16_too_a_row_is_its_own_in_any_company(
    embedded_model_path: Path, tmp_path: Path, temperature: float
) -> None:
    """Rounding decides near ties, so it must not depend on who else is there: to the last bit."""
    if compiled_kernels() is None:
        pytest.skip("this machine has no C compiler, and its products round by their rows")
    base = load_language_model(embedded_model_path, "embedded", dtype="bfloat16")
    write_random_version(base, tmp_path / "version", seed=5, adapter_size=0.01, offset_size=1.0)
    engine = LocalEngine(base, max_batch=16, threads=1)
    mine = [
        replace(
            greedy(text, Condition.PERSONAL, user),
            sampling=Sampling(temperature=temperature, max_new_tokens=48, seed=user),
        )
        for text, user in zip(PROMPTS, USERS, strict=False)
    ]
    try:
        engine.swap(VersionRef(1, tmp_path / "version"))
        alone = [engine.generate([one]).result(WAIT_S)[0].token_ids for one in mine]
        crowd = [greedy(PROMPTS[-1] * 3, Condition.GENERIC, tokens=9)] * 5
        before = engine.generate(crowd)
        next(before.stream())
        together = [engine.generate([one]) for one in mine]
        next(together[0].stream())
        after = [engine.generate(crowd[:nth]) for nth in (1, 3)]
        after[1].cancel()
        made = [call.result(WAIT_S)[0].token_ids for call in together]
    finally:
        engine.close()
    assert made == alone
    assert len(set(alone)) == len(alone)
