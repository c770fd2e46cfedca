"""What only the echo engine promises: no torch, steady and varied text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backend.engines.base import Condition, GenerationRequest, Sampling, VersionRef
from backend.engines.echo import EchoEngine, write_version

PROGRAM = """
import sys, pathlib
from backend.engines.base import Condition, GenerationRequest, Sampling, VersionRef
from backend.engines.echo import EchoEngine
engine = EchoEngine()
engine.write_initial(pathlib.Path(sys.argv[1]))
assert "torch" not in sys.modules, "writing loads torch"
request = GenerationRequest(
    messages=({"role": "user", "content": "How do I start running?"},),
    condition=Condition.BASE,
    user_id=None,
    sampling=Sampling(seed=3),
)
engine.swap(VersionRef(1, pathlib.Path(sys.argv[1])))
print(engine.generate([request]).result()[0].text)
engine.close()
assert "torch" not in sys.modules, "serving loads torch"
"""


def answer(engine: EchoEngine, seed: int) -> str:
    request = GenerationRequest(
        messages=({"role": "user", "content": "How do I start running?"},),
        condition=Condition.BASE,
        user_id=None,
        sampling=Sampling(seed=seed),
    )
    return engine.generate([request]).result(30)[0].text


def test_it_needs_no_torch_and_answers_alike_in_every_process(tmp_path: Path) -> None:
    elsewhere = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "version")],
        capture_output=True,
        text=True,
        check=True,
    )
    engine = EchoEngine()
    engine.swap(VersionRef(1, tmp_path / "version"))
    assert answer(engine, 3) == elsewhere.stdout.strip()
    engine.close()


def test_answers_are_varied_sentences_about_the_prompt(tmp_path: Path) -> None:
    engine = EchoEngine()
    engine.write_initial(tmp_path / "version")
    engine.swap(VersionRef(1, tmp_path / "version"))
    texts = {answer(engine, seed) for seed in range(30)}
    engine.close()
    assert len(texts) > 25
    assert all("How do I start running" in text for text in texts)
    assert all(text.count(".") + text.count("!") >= 3 for text in texts)


def test_a_version_is_never_overwritten(tmp_path: Path) -> None:
    write_version(tmp_path / "version", flavour=1)
    with pytest.raises(FileExistsError):
        write_version(tmp_path / "version", flavour=2)
