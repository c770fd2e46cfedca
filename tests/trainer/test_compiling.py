"""Compiled once, whoever asks; and a compiler that cannot is none."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import pytest

from trainer import compiling
from trainer.compiling import compiled, compiled_once, compiler

SOURCE = "int attune_seven(void) { return 7; }"


def test_what_is_asked_for_is_compiled_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)
    again = threading.Event()
    made: list[Path] = []
    given: list[str | None] = []

    def compiled(source: Path, by: str) -> ctypes.CDLL:
        made.append(source)
        if len(made) > 1:
            again.set()
        again.wait(0.2)  # time enough for another to come in, if it could
        return ctypes.CDLL(None)

    def ask() -> None:
        together.wait(60)
        given.append(functions())

    monkeypatch.setattr(compiling, "compiler", lambda: "cc")
    monkeypatch.setattr(compiling, "compiled", compiled)
    functions = compiled_once(Path("some.c"), lambda _library: "functions")
    callers = [threading.Thread(target=ask) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert made == [Path("some.c")]
    assert given == ["functions", "functions"]


def test_functions_are_the_source_s_own(tmp_path: Path) -> None:
    source = tmp_path / "seven.c"
    source.write_text(SOURCE)
    seven = compiled_once(source, lambda library: int(library.attune_seven()))
    assert seven() == (None if compiler() is None else 7)


def test_without_a_compiler_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "compiler", lambda: None)
    assert compiled_once(Path("some.c"), lambda _library: 1)() is None


def test_a_compiler_that_fails_is_no_compiler(tmp_path: Path) -> None:
    source = tmp_path / "seven.c"
    source.write_text(SOURCE)
    for by in (str(tmp_path / "cc"), "false", "true"):
        assert compiled(source, by) is None
