"""Everything that is measured on a GPU, in one go: `make bench-gpu`.

The engine beside `generate`, a training step beside its peers, serving while a round runs, greedy
tokens in fp32 and one copy of the weights for two processes, and the tests that know devices. Each
part is a process of its own with a time of its own, so that one that fails takes no other along;
figures that it had printed by then count.
It needs torch, transformers, peft, safetensors and pydantic, pytest for the tests, and no database
and no browser. Figures, logs, the sections written to docs/RESULTS.md and their pictures are copied
to `--out`. Prints one JSON line last.

`--model` may be a folder with a configuration and a tokenizer only: it then gets random weights,
which take as long as any others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import devices
from benchmarks.gpu_report import write_report
from trainer.language_model import resolve_device

_ROOT = Path(__file__).parent.parent
_DOCS = _ROOT / "docs"
_TESTS = (
    "tests/trainer/test_decoding.py",
    "tests/trainer/test_tree_attention.py",
    "tests/trainer/test_round.py",
    "tests/backend/engines/test_static_batch.py",
    "tests/backend/engines/test_contract.py",
)


@dataclass(frozen=True, slots=True)
class Part:
    """A command and the seconds it may take."""

    name: str
    command: tuple[str, ...]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    devices.add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for what is found")
    parser.add_argument("--budget-s", type=float, default=420.0, help="seconds for all parts")
    parser.add_argument("--only", nargs="*", help="names of parts; all by default")
    told = parser.parse_args()
    started = time.perf_counter()
    told.out.mkdir(parents=True, exist_ok=True)
    path = devices.found(with_weights(told.model, told.out)).path
    figures: dict[str, Any] = {"prepared_s": round(time.perf_counter() - started, 1)}
    started = time.perf_counter()
    for part in parts(path, told.device):
        left_s = told.budget_s - (time.perf_counter() - started)
        if told.only and part.name not in told.only:
            continue
        figures[part.name] = run(part, left_s, told.out)
        (told.out / "figures.json").write_text(json.dumps(figures, indent=1), "utf-8")
    if not told.only:
        # Last: it asks torch for the card's name, which takes some of the card's memory.
        device = resolve_device(told.device)
        write_report(figures, _DOCS / "RESULTS.md", device, day=datetime.now(UTC).date())
    keep_sections(told.out)
    print(json.dumps(figures))


def parts(model: Path, device: str) -> list[Part]:
    """What is run, the most wanted first."""
    on = ("--model", str(model), "--device", device)

    def module(name: str, *more: str) -> tuple[str, ...]:
        return (sys.executable, "-m", name, *on, *more)

    tests = (
        *(sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "tests.standalone"),
        *("-p", "no:cacheprovider", "-o", "filterwarnings=default", "--model-folder", str(model)),
        *("-k", "cuda", *_TESTS),
    )
    return [
        Part("engine", module("benchmarks.engine", "--repeats", "2"), 100),
        Part("checks", module("benchmarks.gpu_checks"), 90),
        Part("pdpo", module("benchmarks.pdpo", "--repeats", "3"), 70),
        Part("together", module("benchmarks.together", "--round-pairs", "16"), 80),
        Part("tests", tests, 80),
    ]


def run(part: Part, left_s: float, out: Path) -> dict[str, Any]:
    """Run a part, log what it says, and read its figures, also where it came to a bad end."""
    if left_s < 10:
        return {"failed": "no time was left"}
    started = time.perf_counter()
    try:
        done = subprocess.run(
            part.command,
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=min(part.seconds, left_s),
        )
        said, complained, status = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as over:
        said, complained, status = _text(over.stdout), _text(over.stderr), None
    took = {"seconds": round(time.perf_counter() - started, 1)}
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"==== {part.name}: {status}, {took}\n{said}\n---- stderr\n{complained}\n")
    if status != 0:
        why = "took too long" if status is None else last_line(complained or said)
        return (last_figures(said) or {}) | {"failed": why, **took}
    return (last_figures(said) or {"said": last_line(said)}) | took


def last_line(text: str) -> str:
    """The last line with anything in it."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def last_figures(text: str) -> dict[str, Any] | None:
    """The last whole line that is a JSON object; None if there is none."""
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            if isinstance(found := json.loads(line), dict):
                return found
    return None


def keep_sections(out: Path) -> None:
    """Copy the document with the sections that were written, and pictures of this kind."""
    found: Sequence[Path] = [_DOCS / "RESULTS.md", *sorted((_DOCS / "figures").glob("*cuda*.png"))]
    for file in found:
        shutil.copy(file, out / file.name)


def with_weights(model: str, out: Path) -> str:
    """The model's name; a folder without weights is copied beside `out` and gets random ones."""
    folder = Path(model).expanduser()
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return model
    # Imported here: seconds that a model with weights need not cost.
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    target = out.parent / f"{folder.name}-random"
    shutil.copytree(folder, target, dirs_exist_ok=True)
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder)
    made = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    made.save_pretrained(target)
    return str(target.resolve())


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


if __name__ == "__main__":
    main()
