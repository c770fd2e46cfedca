"""`python app.py` as a process: start, health, the first admin, refusals, clean stop."""

from __future__ import annotations

import gc
import inspect
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import gradio as gr
import httpx
import pytest
from fastapi import FastAPI
from gradio.component_meta import create_or_modify_pyi
from starlette.testclient import TestClient

import assembly
from app import _open, no_stubs, nothing_collected
from backend import startup
from backend.front_door import FrontDoor
from backend.settings import Settings, load_settings
from db.session import Database
from dev.running import ROOT, RunningApp, environment
from dev.waiting import wait_for
from ui.language import Languages


def _refused(tmp_path: Path, *within: str, **settings: str) -> str:
    """The one line with which the program refuses to start.

    Args:
        within: a command that runs the one after it.
    """
    values = {"data_dir": str(tmp_path / "data"), "port": "0", "log_level": "error", **settings}
    done = subprocess.run(
        [*within, sys.executable, "app.py"],
        check=False,
        cwd=ROOT,
        env=environment(**values),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("attune: ")
    return lines[0]


def test_an_unknown_setting(tmp_path: Path) -> None:
    assert "unknown setting ATTUNE_MODLE; did you mean ATTUNE_MODEL?" in _refused(
        tmp_path, modle="x"
    )


def test_an_unreachable_database(tmp_path: Path) -> None:
    words = _refused(tmp_path, database_url="postgresql://me:secret@127.0.0.1:1/attune")
    assert "cannot use the database" in words
    assert "secret" not in words


def test_a_missing_model_folder(tmp_path: Path) -> None:
    assert "there is no model folder" in _refused(tmp_path, model=str(tmp_path / "nowhere"))


def test_a_folder_whose_weights_are_damaged(tmp_path: Path, embedded_model_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in embedded_model_path.iterdir():
        if file.suffix in {".json", ".jinja"}:
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.safetensors").write_bytes(b"these are no weights" * 100)
    assert "cannot load the model" in _refused(
        tmp_path, model=str(folder), cache_dir=str(tmp_path / "cache")
    )


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    few_blocks = ("sh", "-c", 'ulimit -f 16; exec "$@"', "sh")
    assert "cannot write to the data folder" in _refused(tmp_path, *few_blocks)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["versions"]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with startup.listen("127.0.0.1", 0) as first:
        port = str(first.getsockname()[1])
        assert "cannot listen" in _refused(tmp_path, engine="echo", port=port)


def test_health_comes_first_then_readiness_and_the_admin_link_works_once(tmp_path: Path) -> None:
    with RunningApp(tmp_path, engine="echo") as app:
        assert httpx.get(f"{app.address}/healthz").text == "ok"
        waiting = httpx.get(f"{app.address}/readyz")
        assert (waiting.status_code, waiting.json()["status"] != "live") == (503, True)
        page = httpx.get(app.address, headers={"Accept": "text/html", "Sec-Fetch-Dest": "document"})
        assert page.status_code == 503
        assert "http-equiv" in page.text

        link = app.wait_ready().wait_invite()
        assert httpx.get(f"{app.address}/readyz").json() == {"status": "live"}
        form = {"username": "ada", "password": "a long enough password"}
        made = httpx.post(link, data=form, headers={"Origin": app.address})
        assert made.status_code == 303
        cookies = {"attune_session": made.cookies["attune_session"]}
        assert httpx.get(f"{app.address}/lab/", cookies=cookies).status_code == 200
        again = httpx.post(link, data={**form, "username": "eve"}, headers={"Origin": app.address})
        assert again.status_code != 303
        assert app.stop() == 0
    with RunningApp(tmp_path, engine="echo") as app:
        app.wait_ready()
        app.stop()
        assert not any("first admin" in line for line in app.lines)


def test_a_start_under_way_can_be_cut_short(tmp_path: Path) -> None:
    app = RunningApp(tmp_path, engine="echo")
    assert httpx.get(f"{app.address}/healthz").status_code == 200
    app.process.send_signal(signal.SIGINT)
    app.wait_line("once more: at once")
    app.process.send_signal(signal.SIGINT)
    assert app.stop() == -signal.SIGINT


def test_what_the_start_made_is_not_looked_through_for_garbage() -> None:
    with nothing_collected():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000
    gc.unfreeze()


def test_readyz_says_what_the_house_waits_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> None:
    missing = ["the model"]
    built = (FastAPI(), lambda: missing[0] if missing else None)
    monkeypatch.setattr(assembly, "build", lambda ground: built)
    door = FrontDoor(lambda phase, request: phase)
    with TestClient(door) as client, closing(Database(sqlite_url)) as database:
        _open(load_settings({}), tmp_path, database, Languages(), door=door, closing=ExitStack())
        gc.unfreeze()
        assert client.get("/readyz").json() == {"status": "the model"}
        missing.clear()
        assert client.get("/readyz").json() == {"status": "live"}


def test_gradios_import_makes_no_type_stubs() -> None:
    with pytest.raises(ValueError, match="class source"):  # it looks into the source
        create_or_modify_pyi(gr.Button, "NoSuchClass", [])
    with no_stubs():
        create_or_modify_pyi(gr.Button, "NoSuchClass", [])
        assert inspect.getfile(Path)
    assert inspect.getfile(gr.Button)


def test_a_stranger_is_sent_to_sign_in(app: RunningApp) -> None:
    headers = {"Accept": "text/html", "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}
    assert httpx.get(f"{app.address}/lab").headers["location"] == "/lab/"
    for path in ("/", "/lab/", "/account"):
        answer = httpx.get(f"{app.address}{path}", headers=headers)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")


def test_personas_choose_from_the_start_on_and_end_with_the_app(tmp_path: Path) -> None:
    settings = {"engine": "echo", "personas": "warm, sober", "persona_choices": "0"}
    with RunningApp(tmp_path, **settings) as app:
        app.wait_ready()
        app.wait_line("Simulated users are choosing")
        wait_for(lambda: _choices(tmp_path) > 4)
        assert app.stop() == 0
        assert not any("tries again" in line or "Traceback" in line for line in app.lines)
    stored = _choices(tmp_path)
    with RunningApp(tmp_path, engine="echo") as app:
        app.wait_ready()
        app.stop()
    assert _choices(tmp_path) == stored


def test_the_demo_keeps_to_a_folder_of_its_own() -> None:
    told = subprocess.run(
        ["make", "--dry-run", "demo"], check=True, cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert 'ATTUNE_DATA_DIR="$folder" ATTUNE_DATABASE_URL= ' in told
    set_there = set(re.findall(r"(ATTUNE_\w+)=", told))
    assert set_there <= {f"ATTUNE_{name.upper()}" for name in Settings.model_fields}


def _choices(folder: Path) -> int:
    """How many choices simulated users have made."""
    with closing(sqlite3.connect(folder / "attune.db", timeout=15)) as connection:
        count: int = connection.execute(
            "SELECT count(*) FROM choices c JOIN users u ON u.id = c.user_id WHERE u.is_simulated"
        ).fetchone()[0]
        return count
