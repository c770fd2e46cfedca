"""The engines under test, each with a way to make versions and to damage them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from backend.engines import model_thread, weights
from backend.engines.base import Engine, VersionRef
from backend.engines.echo import EchoEngine, write_version
from backend.engines.kernels import Kernels, compiled_kernels
from backend.engines.local import LocalEngine
from tests.backend.engines.by_hand import BY_HAND
from tests.backend.engines.making import USERS, Counting, tiny_model, write_random_version
from trainer.language_model import LanguageModel, load_language_model


@pytest.fixture(scope="session")
def tokenizer(embedded_model_path: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(embedded_model_path, local_files_only=True)


@pytest.fixture
def tiny(tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    return tiny_model(tokenizer)


@pytest.fixture(scope="session")
def embedded(embedded_model_path: Path) -> LanguageModel:
    return load_language_model(embedded_model_path, "embedded", dtype="float32")


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    """What this machine's compiler makes of `kernels.c`; without one, what the file promises."""
    return compiled_kernels() or BY_HAND


@dataclass
class EngineCase:
    """One implementation of `Engine`.

    Attributes:
        new_version: writes the artifact of another version, every call a different one.
        damage: spoils one of its files.
    """

    engine: Engine
    new_version: Callable[[], VersionRef]
    damage: Callable[[Path], None]


@pytest.fixture(params=["echo", "local", "rooms", *(["cuda"] if torch.cuda.is_available() else [])])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """`rooms`: what `local` does on a GPU, on a CPU: steps in fixed rooms, weights in one place."""
    name: str = request.param
    if name == "rooms":
        monkeypatch.setattr(model_thread, "capture_on", lambda _: Counting())
        monkeypatch.setattr(weights, "_stays", lambda _: True)
        for form in ("can_stream", "can_pack"):
            monkeypatch.setattr(weights, form, lambda *_, **__: False)
    return name


@pytest.fixture
def fresh_case(kind: str, tiny: LanguageModel, tmp_path: Path) -> Iterator[EngineCase]:
    """An engine that has no version yet."""
    with _case(kind, tiny, tmp_path, word_delay_s=0.0) as case:
        yield case


@pytest.fixture
def case(fresh_case: EngineCase) -> EngineCase:
    """An engine with a first version in place."""
    fresh_case.engine.swap(fresh_case.new_version())
    return fresh_case


@pytest.fixture
def slow_case(kind: str, tiny: LanguageModel, tmp_path: Path) -> Iterator[EngineCase]:
    """The same, where a long response takes seconds."""
    with _case(kind, tiny, tmp_path, word_delay_s=0.05) as case:
        case.engine.swap(case.new_version())
        yield case


@contextmanager
def _case(
    kind: str, tiny: LanguageModel, folder: Path, word_delay_s: float
) -> Iterator[EngineCase]:
    numbers = itertools.count(1)
    is_echo = kind == "echo"

    def new_version() -> VersionRef:
        number = next(numbers)
        path = folder / f"round-{number}"
        if is_echo:
            write_version(path, flavour=number, users=USERS)
        else:
            write_random_version(tiny, path, seed=number)
        return VersionRef(number, path)

    def damage(path: Path) -> None:
        file = path / ("manifest.json" if is_echo else "user_vectors.safetensors")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    engine: Engine
    if kind == "cuda":
        torch.nn.Module.to(tiny.model, "cuda")
    if is_echo:
        engine = EchoEngine(word_delay_s=word_delay_s)
    else:
        engine = LocalEngine(tiny, max_batch=8, threads=1)
    try:
        yield EngineCase(engine, new_version, damage)
    finally:
        engine.close()
