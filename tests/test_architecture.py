"""The shape of the house, read from its source: who may import whom, who touches the environment.

app.py, assembly.py → ui → backend → {db, trainer}          no arrow points back
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("ui", "backend", "db", "trainer", "dev", "benchmarks", "tests")
LONGEST_FILE_LINES = 400

# Room → the rooms of ours it may import. A file in the root is a room of its own.
MAY_IMPORT = {
    "app": {"assembly", "ui", "backend", "db", "trainer"},
    "assembly": {"ui", "backend", "db", "trainer"},
    "ui": {"backend"},
    "backend": {"db", "trainer"},
    "db": set(),
    "trainer": set(),
    "dev": {"backend", "db", "trainer"},
    "benchmarks": {"dev", "backend", "db", "trainer"},
    "tests": {"app", "assembly", "ui", "backend", "db", "trainer", "dev", "benchmarks"},
}
WEB = {"gradio", "fastapi", "starlette", "uvicorn"}
TORCH = {"torch", "transformers", "peft", "safetensors"}
SQL = {"sqlalchemy", "alembic", "psycopg"}
# Room → packages of others it must not know.
MUST_NOT_IMPORT = {
    "ui": SQL | TORCH | {"apscheduler"},
    "backend": {"gradio"},
    "db": WEB | TORCH,
    "trainer": WEB | SQL | {"apscheduler"},
}
READ_THE_ENVIRONMENT = {
    "app.py",
    "backend/settings.py",
    "backend/trainer_process.py",
    "db/migrations/env.py",
    "trainer/__main__.py",
}


def _files() -> list[str]:
    found = list(ROOT.glob("*.py"))
    for room in ROOMS:
        found += (ROOT / room).rglob("*.py")
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


FILES = _files()
PRODUCT = [file for file in FILES if not file.startswith("tests/")]
TESTS = [file for file in FILES if file.startswith("tests/")]


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"), file)


def _room(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def _imports(file: str) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of every import, wherever in the file it stands."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute here"
            assert node.module is not None  # only relative imports have none
            yield node.lineno, node.module.split(".")[0]


def _names(file: str, module: str, names: set[str]) -> Iterator[int]:
    """Lines that use `module.name` or import the name from the module."""
    for node in ast.walk(_tree(file)):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                if owner == module and name in names:
                    yield node.lineno
            case ast.ImportFrom(module=source, names=aliases):
                if source == module and names & {alias.name for alias in aliases}:
                    yield node.lineno


def test_every_room_is_here() -> None:
    assert {_room(file) for file in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("file", FILES)
def test_imports_follow_the_arrows(file: str) -> None:
    room = _room(file)
    forbidden = (set(MAY_IMPORT) - MAY_IMPORT[room] - {room}) | MUST_NOT_IMPORT.get(room, set())
    wrong = [f"{file}:{line} imports {name}" for line, name in _imports(file) if name in forbidden]
    assert wrong == []


@pytest.mark.parametrize("file", PRODUCT)
def test_the_environment_is_read_in_few_places(file: str) -> None:
    if file not in READ_THE_ENVIRONMENT and not file.startswith("dev/"):
        lines = list(_names(file, "os", {"environ", "environb", "getenv", "putenv", "unsetenv"}))
        assert lines == [], f"{file}: a setting belongs into backend/settings.py"


@pytest.mark.parametrize("file", TESTS)
def test_no_test_sleeps(file: str) -> None:
    """A test waits for what it needs, not for time to pass."""
    assert list(_names(file, "time", {"sleep"})) == []
    called = [node for node in ast.walk(_tree(file)) if isinstance(node, ast.Attribute)]
    assert [node.lineno for node in called if node.attr == "wait_for_timeout"] == []


@pytest.mark.parametrize("file", FILES)
def test_files_stay_short(file: str) -> None:
    lines = len((ROOT / file).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE_LINES, f"{file} has {lines} lines: split it by responsibility"


@pytest.mark.parametrize("file", PRODUCT)
def test_every_file_says_what_it_is_for(file: str) -> None:
    tree = _tree(file)
    assert not tree.body or ast.get_docstring(tree)
