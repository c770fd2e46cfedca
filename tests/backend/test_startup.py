"""What stops the program before it starts, and how it says so."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from backend import startup
from backend.errors import ConfigurationError
from db.session import Database


def _refusal(function: object, *arguments: object) -> str:
    assert callable(function)
    with pytest.raises(ConfigurationError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_data_folder_is_made_and_left_clean(tmp_path: Path) -> None:
    folder = startup.prepare_data_dir(tmp_path / "deep" / "data")
    assert [path.name for path in folder.iterdir()] == ["versions"]


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    assert "cannot write to the data folder" in _refusal(
        startup.prepare_data_dir, tmp_path / "data"
    )


def test_who_starts_on_one_folder_together_is_not_refused(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(startup.prepare_data_dir, [tmp_path] * 200))
    assert found == {tmp_path}
    assert [path.name for path in tmp_path.iterdir()] == ["versions"]


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert "is full: 3 MB free" in _refusal(startup.prepare_data_dir, tmp_path)


def test_a_new_sqlite_file_is_migrated(tmp_path: Path) -> None:
    database = startup.open_database(f"sqlite:///{tmp_path / 'a.db'}")
    assert "choices" in inspect(database.engine).get_table_names()
    database.close()


def test_a_sqlite_file_belongs_to_one_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    let_go = startup.hold_alone(url)
    held = "from backend.startup import hold_alone; import sys; hold_alone(sys.argv[1])"
    command = [sys.executable, "-c", held, url]
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"another Attune uses the database {tmp_path / 'a.db'}" in other.stderr
    let_go()
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///{}/b/a.db", "postgresql://h/a", "postgresql://h:p/a", "nonsense"],
)
def test_what_is_no_file_of_ours_is_not_held(tmp_path: Path, url: str) -> None:
    startup.hold_alone(url.format(tmp_path))()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["nonsense", "oracle9://x/y", "http://example.org", "postgresql://host:port/attune"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    assert "not a database URL" in _refusal(startup.open_database, url)


def test_an_unreachable_database_is_refused_without_its_password() -> None:
    words = _refusal(startup.open_database, "postgresql://me:s3cret@127.0.0.1:1/attune")
    assert "cannot use the database postgresql://me:***@127.0.0.1:1/attune" in words
    assert "s3cret" not in words


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("this is not a database, but long enough to look at" * 30)
    assert "cannot use the database" in _refusal(
        startup.open_database, f"sqlite:///{tmp_path / 'a.db'}"
    )


def test_a_database_of_newer_code_is_refused(database: Database, database_url: str) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert "it is from a newer Attune" in _refusal(startup.open_database, database_url)


def test_a_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}" in _refusal(startup.listen, "127.0.0.1", port)


def test_an_address_can_be_opened_in_a_browser() -> None:
    assert startup.host_and_port("127.0.0.1", 7860) == "127.0.0.1:7860"
    assert startup.host_and_port("::1", 7860) == "[::1]:7860"
