"""Everything on a GPU in one go: parts that fail alone, and what need not be installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import torch

from backend.base_model import BaseModel
from benchmarks import gpu, gpu_checks, gpu_report
from benchmarks.gpu import Part, last_figures, parts, run, with_weights
from dev.random_model import random_model
from tests.trainer.conftest import tokenizer  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
# What is not there on a machine that is only lent for its GPU.
ABSENT = ("sqlalchemy", "alembic", "psycopg", "gradio", "fastapi", "starlette", "apscheduler")
IMPORTS = f"""
import sys
for name in {ABSENT}:
    sys.modules[name] = None
import benchmarks.engine, benchmarks.pdpo, benchmarks.together, benchmarks.gpu_checks
import tests.standalone, tests.backend.engines.conftest, tests.trainer.conftest
"""


def python(code: str, seconds: float = 60.0) -> Part:
    return Part("part", (sys.executable, "-c", code), seconds)


def test_neither_database_nor_pages_are_needed() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, check=True)


def test_a_part_that_fails_is_an_entry_among_others(tmp_path: Path) -> None:
    good = run(python("print('words'); print('{\"a\": 1}')"), 60.0, tmp_path)
    assert good["a"] == 1
    assert good["seconds"] >= 0
    bad = run(python("raise ValueError('no such thing')"), 60.0, tmp_path)
    assert bad["failed"] == "ValueError: no such thing"
    late = run(
        python("import threading; print('begun', flush=True); threading.Event().wait()", 5),
        60.0,
        tmp_path,
    )
    assert late["failed"] == "took too long"
    assert run(python("print(1)"), 5.0, tmp_path) == {"failed": "no time was left"}
    log = (tmp_path / "log.txt").read_text("utf-8")
    assert "words" in log
    assert "begun" in log
    assert "no such thing" in log


def test_figures_count_however_a_part_ends(tmp_path: Path) -> None:
    figures = "print('{\"a\": 1}', flush=True); "
    late = run(python(f"{figures}import threading; threading.Event().wait()", 5), 60.0, tmp_path)
    assert late["a"] == 1
    assert late["failed"] == "took too long"
    broken = run(python(f"{figures}raise ValueError('no more')"), 60.0, tmp_path)
    assert broken["a"] == 1
    assert broken["failed"] == "ValueError: no more"


def test_what_is_no_json_is_told_as_it_is(tmp_path: Path) -> None:
    assert last_figures("a\n12 passed in 3 s\n\n") is None
    assert last_figures('{"a": 1}\n{"a": 2}\n7\n{"a":') == {"a": 2}
    assert run(python("print('12 passed')"), 60.0, tmp_path)["said"] == "12 passed"


def test_every_part_is_there_to_be_run() -> None:
    for part in parts(Path("model"), "cuda"):
        for file in (word for word in part.command if word.startswith("tests/")):
            assert (ROOT / file).exists()
    assert [part.name for part in parts(Path("model"), "cuda")][:2] == ["engine", "checks"]


def test_sections_and_pictures_of_a_gpu_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, out = tmp_path / "docs", tmp_path / "out"
    (docs / "figures").mkdir(parents=True)
    out.mkdir()
    for name in ("RESULTS.md", "figures/one-cuda.png", "figures/other.png"):
        (docs / name).write_text(name)
    monkeypatch.setattr(gpu, "_DOCS", docs)
    gpu.keep_sections(out)
    assert sorted(file.name for file in out.iterdir()) == ["RESULTS.md", "one-cuda.png"]


def test_a_run_replaces_the_section_of_the_one_before(tmp_path: Path) -> None:
    document = tmp_path / "RESULTS.md"
    document.write_text("# Results\n")
    for number in (1, 2):
        figures = {"checks": {"number": number}, "tests": {"failed": "no time was left"}}
        gpu_report.write_report(
            figures, document, torch.device("cpu"), day=date(2026, 11, 27 + number)
        )
    text = document.read_text()
    assert text.count("## On a GPU: `make bench-gpu`") == 1
    assert "2026-11-29, " in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text
    assert '"number": 2' in text
    assert '"number": 1' not in text


def test_a_folder_without_weights_gets_random_ones(tmp_path: Path, tokenizer) -> None:  # noqa: F811
    model = random_model(tokenizer, "1d")
    folder = tmp_path / "shape"
    model.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert with_weights(str(folder), tmp_path / "out") == str(folder)
    (folder / "model.safetensors").unlink()
    made = Path(with_weights(str(folder), tmp_path / "out"))
    assert (made / "model.safetensors").stat().st_size > 1_000_000
    assert (made / "tokenizer.json").exists()
    assert with_weights("embedded", tmp_path) == "embedded"


@pytest.mark.usefixtures("file_system")
def test_another_process_computes_the_same_attached_or_loaded(
    tmp_path: Path,
    tokenizer,  # noqa: F811
) -> None:
    model = random_model(tokenizer, "1d")
    model.model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    figures = gpu_checks.sharing(model, BaseModel(tmp_path / "model", "1d"))
    assert figures["weights_mb"] == 6
    assert figures["attach_logits_equal"]
    assert figures["load_logits_equal"]
    shutil.rmtree(tmp_path / "model")
    assert json.dumps(figures)
