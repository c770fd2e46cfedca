"""The local engine along style directions: the vector it answers with, and who has none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backend.engines.base import Condition, VersionRef
from backend.engines.local import LocalEngine
from backend.errors import Unavailable
from tests.backend.engines.making import greedy, messages_of, write_random_version
from tests.backend.engines.test_local import PROMPTS, WAIT_S, generated_by
from trainer.artifacts import load_version
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel
from trainer.prompting import PromptFormat
from trainer.round import write_initial


def test_a_style_is_answered_with_its_direction_whoever_asks(
    tiny: LanguageModel, tmp_path: Path
) -> None:
    config = TrainConfig(user_model="styled")
    shape = (3, config.prefix_tokens, tiny.model.config.hidden_size)
    directions = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    write_initial(tiny, config, tmp_path / "styled", directions)
    prompts = PromptFormat(tiny.tokenizer, config.prefix_tokens)
    prompt = prompts.encode(messages_of(PROMPTS[0]), with_prefix=True)
    generic = load_version(tmp_path / "styled", base_identity=tiny.identity).vectors.generic
    vectors = [generic, *(generic + direction for direction in directions)]
    expected = [generated_by(tiny.model, tiny, prompt, v, tokens=12) for v in vectors]
    assert len(set(expected)) == 4
    engine = LocalEngine(tiny, max_batch=8, threads=1)
    plain = greedy(PROMPTS[0], Condition.GENERIC, tokens=12)
    try:
        engine.swap(VersionRef(1, tmp_path / "styled"))
        asked = [plain, *(replace(plain, style=index) for index in range(3))]
        asked.append(replace(plain, condition=Condition.PERSONAL, user_id=9, style=2))
        made = [response.token_ids for response in engine.generate(asked).result(WAIT_S)]
        with pytest.raises(Unavailable, match="has 3 styles and cannot answer in style 4"):
            engine.generate([plain, replace(plain, style=3)])
    finally:
        engine.close()
    assert made == [*expected, expected[3]]


def test_a_version_without_styles_cannot_answer_in_one(tiny: LanguageModel, tmp_path: Path) -> None:
    write_random_version(tiny, tmp_path / "version", seed=5)
    engine = LocalEngine(tiny, max_batch=8, threads=1)
    try:
        engine.swap(VersionRef(1, tmp_path / "version"))
        with pytest.raises(Unavailable, match="has 0 styles"):
            engine.generate([replace(greedy(PROMPTS[0], Condition.GENERIC), style=0)])
    finally:
        engine.close()
