"""The documents hold: their paths, links, commands, settings and pins are the real ones."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from huggingface_hub import metadata_load

from backend.settings import Settings
from backend.shipped_prompts import USUAL_ENDING
from dev.document_settings import table

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "dev").rglob("*.md"))
)
SERVED = ("ui", "backend", "db", "trainer")  # with the files in the root: what `python app.py` runs
ALSO_RUN = ("dev", "benchmarks", "tests")
SPACE_COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
SETTINGS_BLOCK = re.compile(r"<!-- settings: begin -->\n(.*?)\n<!-- settings: end -->", re.DOTALL)

_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"\.?[A-Za-z_][\w.-]*(/[\w.-]+)*/?")
_FILE_ENDING = re.compile(r"\.(py|md|toml|txt|ini|css|js|html|jsonl)$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)(\[[\w,-]+\])?==[\w.+!-]+")


@cache
def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _prose(name: str) -> str:
    """The document without its fenced blocks."""
    return _FENCED.sub("", _text(name))


def _paths(name: str) -> list[str]:
    """Code spans that name a file or folder of this repository."""
    spans = {span for span in _SPAN.findall(_prose(name)) if _PATH.fullmatch(span)}
    return sorted(span for span in spans if "/" in span or _FILE_ENDING.search(span))


def _anchors(name: str) -> set[str]:
    """The fragments that GitHub gives the document's headings."""
    headings = re.findall(r"^#+ +(.+?)\s*$", _prose(name), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def _leads_somewhere(name: str, link: str) -> bool:
    """Whether a relative link in document `name` has a target, its fragment included."""
    target, _, anchor = link.partition("#")
    path = ((ROOT / name).parent / target).resolve() if target else ROOT / name
    if not path.exists():
        return False
    return not anchor or anchor in _anchors(path.relative_to(ROOT).as_posix())


def _requirements(name: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in _text(name).splitlines())
    return [line for line in lines if line and not line.startswith("-r ")]


def _pinned(name: str) -> dict[str, str]:
    """Distribution, normalized → pinned version."""
    pairs = (line.split("==") for line in _requirements(name))
    return {_normalized(left.split("[")[0]): version for left, version in pairs}


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _imported(rooms: tuple[str, ...]) -> dict[str, str]:
    """Top-level package that is neither ours nor Python's → a file that imports it."""
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    ours = {*SERVED, *ALSO_RUN, *(path.stem for path in ROOT.glob("*.py"))}
    found: dict[str, str] = {}
    for path in [*files, *(ROOT.glob("*.py") if rooms is SERVED else ())]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            else:
                continue
            tops = {name.split(".")[0] for name in names} - ours - sys.stdlib_module_names
            found.update(dict.fromkeys(tops, path.relative_to(ROOT).as_posix()))
    return found


def _unpinned(imported: dict[str, str], pinned: set[str]) -> list[str]:
    """Imports whose distribution no requirement names."""
    makers = packages_distributions()
    return [
        f"{package} (imported by {file})"
        for package, file in sorted(imported.items())
        if not pinned & {_normalized(maker) for maker in makers.get(package, [package])}
    ]


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"])
def test_every_path_named_exists(name: str) -> None:
    paths = _paths(name)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    links = [link for link in _LINK.findall(_prose(name)) if not re.match(r"[a-z]+:", link)]
    assert [link for link in links if not _leads_somewhere(name, link)] == []


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", _text("Makefile"), re.MULTILINE))
    assert {"run", "test", "check", "fix", "bench-loop"} <= targets
    for name in DOCUMENTS:
        named = re.findall(r"(?:^|`)make ([a-z][\w-]*)", _text(name), re.MULTILINE)
        assert set(named) <= targets, name


def test_the_demo_asks_as_the_style_directions_were_made() -> None:
    recipe = _text("Makefile").split("\ndemo:")[1].split("\n\n")[0]
    assert f'ATTUNE_PROMPT_ENDING="{USUAL_ENDING}"' in recipe
    known = {f"ATTUNE_{field.upper()}" for field in Settings.model_fields}
    assert set(re.findall(r"ATTUNE_[A-Z_]+", recipe)) <= known


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_setting_named_is_one(name: str) -> None:
    known = {f"ATTUNE_{field.upper()}" for field in Settings.model_fields}
    assert set(re.findall(r"ATTUNE_[A-Z0-9_]*[A-Z0-9]", _text(name))) <= known


def test_the_table_of_settings_is_the_real_one() -> None:
    block = SETTINGS_BLOCK.search(_text("OPERATIONS.md"))
    assert block is not None
    assert block[1].strip() == table(), "run `.venv/bin/python -m dev.document_settings`"


def test_the_readme_gives_the_real_defaults() -> None:
    row = re.compile(r"^\| (`ATTUNE_\w+`) \| ([^|]*)\|", re.MULTILINE)
    real = {name: default.strip() for name, default in row.findall(table())}
    shown = {name: default.strip() for name, default in row.findall(_text("README.md"))}
    assert len(shown) >= 10
    assert shown.items() <= real.items()


def test_the_readme_opens_as_a_space_does() -> None:
    front = metadata_load(ROOT / "README.md")
    assert front is not None
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py")
    assert front["sdk_version"] == _pinned("requirements.txt")["gradio"]
    assert isinstance(front["python_version"], str)  # 3.10 as a number would be 3.1
    assert f">={front['python_version']}" == _project()["requires-python"]
    assert front["license"] == str(_project()["license"]).lower()
    assert front["hf_oauth"] is True
    assert {front["colorFrom"], front["colorTo"]} <= SPACE_COLOURS
    assert 0 < len(front["short_description"]) <= 60


def _project() -> dict[str, object]:
    project: dict[str, object] = tomllib.loads(_text("pyproject.toml"))["project"]
    return project


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned(name: str) -> None:
    assert [line for line in _requirements(name) if not _PINNED.fullmatch(line)] == []


def test_whatever_is_imported_is_required() -> None:
    served = set(_pinned("requirements.txt"))
    assert _unpinned(_imported(SERVED), served) == []
    everything = served | set(_pinned("requirements-dev.txt"))
    assert _unpinned(_imported(ALSO_RUN), everything) == []


def test_the_changelog_has_room_for_the_next_version() -> None:
    headings = re.findall(r"^## (.+)$", _text("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    dated = re.compile(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}")
    assert [heading for heading in headings[1:] if not dated.fullmatch(heading)] == []
