"""Round directories: written whole or not at all, checksummed, read back verified.

    manifest.json                 sha256 and size of every other file, identity of the base model
    train_config.json             the recipe (`TrainConfig.to_json`)
    adapter/…                     what `PeftModel.from_pretrained` loads
    user_vectors.safetensors      what the user model keeps (`trainer.user_vectors`), fp32
    trainer_state.safetensors     optimizer state, by parameter name
    metrics.json                  curve and gate

A file is only ever parsed from the very bytes whose checksum was compared. No pickle anywhere.
Knows nothing of databases, of who is served, or of how a vector was learned.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from trainer.config import TrainConfig
from trainer.user_vectors import UserVectors, served_vectors

MANIFEST = "manifest.json"
TRAIN_CONFIG = "train_config.json"
ADAPTER_CONFIG = "adapter/adapter_config.json"
ADAPTER_WEIGHTS = "adapter/adapter_model.safetensors"
USER_VECTORS = "user_vectors.safetensors"
TRAINER_STATE = "trainer_state.safetensors"
METRICS = "metrics.json"

_FORMAT = 1
_PARTIAL = ".partial"
_ABANDONED_S = 3600  # after that nobody writes it any more
_PER_USER = {"user_ids", "offsets", "weights", "shares"}  # tensors with one row per user


class ArtifactDamaged(Exception):
    """A round directory is not what was written, or belongs to another base model."""


class ArtifactUnreadable(ArtifactDamaged):
    """A file is there, but cannot be read now: no right to, a failing disk, too many open files.

    What it holds may be as written: this says nothing of it for good, nor for other processes.
    """


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a directory holds.

    Attributes:
        base_identity: checksum of the base model the round belongs to.
        files: relative path → (sha256 in hex, bytes).
    """

    base_identity: str
    files: dict[str, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class VersionTensors:
    """What serving needs of one version.

    Attributes:
        adapter: LoRA weights, fp32, under PEFT's checkpoint names.
        config: the recipe (rank, alpha, targets, prefix tokens).
        base_identity: checksum of the base model they belong to.
        vectors: e₀ and every e_u.
    """

    adapter: dict[str, Tensor]
    config: TrainConfig
    base_identity: str
    vectors: UserVectors

    @property
    def lora_scale(self) -> float:
        """The factor on B·A: alpha / rank."""
        return self.config.lora_alpha / self.config.lora_rank


def load_version(path: Path, *, base_identity: str) -> VersionTensors:
    """The version in directory `path`, every file verified.

    Raises:
        ArtifactDamaged: a file is missing or changed, or the base model is another.
        ArtifactUnreadable: one cannot be read now.
    """
    return parse_version(read_verified(path, base_identity=base_identity), path, base_identity)


def parse_version(files: Mapping[str, bytes], path: Path, base_identity: str) -> VersionTensors:
    """Verified bytes → tensors; `path` only names the directory in errors.

    Raises:
        ArtifactDamaged: the content does not parse.
    """
    try:
        return VersionTensors(
            adapter=safetensors.torch.load(files[ADAPTER_WEIGHTS]),
            config=TrainConfig.from_json(json.loads(files[TRAIN_CONFIG])),
            base_identity=base_identity,
            vectors=served_vectors(safetensors.torch.load(files[USER_VECTORS])),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ArtifactDamaged(f"{path.name}: cannot be read ({error})") from error


def read_recipe(path: Path) -> TrainConfig:
    """What the version in directory `path` was made with.

    Raises:
        ArtifactDamaged: the file is missing or changed. ArtifactUnreadable: not to be read now.
    """
    entry = _read_manifest(path).files.get(TRAIN_CONFIG)
    if entry is None:
        raise ArtifactDamaged(f"{path.name}: it has no recipe")
    try:
        return TrainConfig.from_json(json.loads(_read_file(path, TRAIN_CONFIG, *entry)))
    except (TypeError, ValueError) as error:
        raise ArtifactDamaged(f"{path.name}: cannot be read ({error})") from error


def read_user_vectors(path: Path) -> UserVectors:
    """The vectors alone of the version in directory `path`, whatever base model it belongs to.

    Raises:
        ArtifactDamaged: the file is missing or changed. ArtifactUnreadable: not to be read now.
    """
    entry = _read_manifest(path).files.get(USER_VECTORS)
    if entry is None:
        raise ArtifactDamaged(f"{path.name}: it has no user vectors")
    try:
        return served_vectors(safetensors.torch.load(_read_file(path, USER_VECTORS, *entry)))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ArtifactDamaged(f"{path.name}: cannot be read ({error})") from error


def write_without(path: Path, target: Path, users: Collection[int]) -> str:
    """Write directory `path` again as `target`, without what it keeps of some users.

    Their vectors, their optimizer state and the texts written in their taste are left out; all
    else is as it was, bit for bit. Returns the new manifest's checksum.

    Raises:
        ArtifactDamaged: `path` is not as written. ArtifactUnreadable: a file cannot be read now.
        FileExistsError, OSError: as `write_artifact`.
    """
    identity = _read_manifest(path).base_identity
    files = read_verified(path, base_identity=identity)
    files[USER_VECTORS] = _vectors_without(files[USER_VECTORS], users)
    state = safetensors.torch.load(files[TRAINER_STATE])
    theirs = {f"user.{user}" for user in users}
    files[TRAINER_STATE] = safetensors.torch.save(
        {name: value for name, value in state.items() if theirs.isdisjoint(name.split("/"))}
    )
    if METRICS in files:
        files[METRICS] = _metrics_without(files[METRICS], users)
    return write_artifact(target, files, base_identity=identity)


def _vectors_without(data: bytes, users: Collection[int]) -> bytes:
    tensors = safetensors.torch.load(data)
    kept = [row for row, user in enumerate(tensors["user_ids"].tolist()) if user not in users]
    for name in _PER_USER & tensors.keys():
        tensors[name] = tensors[name][kept].clone()
    return safetensors.torch.save(tensors)


def _metrics_without(data: bytes, users: Collection[int]) -> bytes:
    metrics = json.loads(data)
    gate = metrics.get("gate")
    if gate:
        gate["samples"] = [text for text in gate["samples"] if text["user_id"] not in users]
    return json.dumps(metrics, indent=1, allow_nan=False).encode()


def read_verified(path: Path, *, base_identity: str) -> dict[str, bytes]:
    """The bytes of every file the manifest names, each compared with its checksum.

    Raises:
        ArtifactDamaged: a file is not as written. ArtifactUnreadable: one cannot be read now.
    """
    manifest = _read_manifest(path)
    if manifest.base_identity != base_identity:
        raise ArtifactDamaged(
            f"{path.name}: made for base model {manifest.base_identity[:12]}, "
            f"not for {base_identity[:12]}"
        )
    return {name: _read_file(path, name, *entry) for name, entry in manifest.files.items()}


def verify(path: Path) -> Manifest:
    """Compare every file of directory `path` with its checksum.

    Raises:
        ArtifactDamaged: a file is not as written. ArtifactUnreadable: one cannot be read now.
    """
    manifest = _read_manifest(path)
    for name, entry in manifest.files.items():
        _read_file(path, name, *entry)
    return manifest


def manifest_sha256(path: Path) -> str:
    """Checksum of the manifest, and through it of the whole directory.

    Raises:
        ArtifactDamaged: there is no manifest. ArtifactUnreadable: it cannot be read now.
    """
    return hashlib.sha256(_read(path, MANIFEST)).hexdigest()


def write_artifact(target: Path, files: Mapping[str, bytes], *, base_identity: str) -> str:
    """Write `files` (relative path → bytes) and their manifest as directory `target`, durably.

    Everything is written and fsynced under a temporary name beside `target`, then renamed; after a
    crash at any moment `target` is either whole or absent.

    Returns:
        sha256 of the manifest, in hex.

    Raises:
        FileExistsError: `target` exists. OSError: the disk is full or not writable.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    manifest = _canonical(
        {
            "base_identity": base_identity,
            "files": {
                name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in files.items()
            },
            "format": _FORMAT,
        }
    )
    partial = target.parent / f".{target.name}.{os.getpid()}{_PARTIAL}"
    partial.mkdir()
    try:
        for name, data in {**files, MANIFEST: manifest}.items():
            _write_durably(partial / PurePosixPath(name), data)
        for folder in (*(d for d in partial.rglob("*") if d.is_dir()), partial):
            _fsync_folder(folder)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _fsync_folder(target.parent)
    return hashlib.sha256(manifest).hexdigest()


def sweep_partials(parent: Path) -> None:
    """Remove what a process killed while writing has left in `parent`.

    Others may be writing there just now, and take seconds: only what is hours old is nobody's.
    """
    for left in parent.glob(f".*{_PARTIAL}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)


def _read_manifest(path: Path) -> Manifest:
    data = _read(path, MANIFEST)
    try:
        content = json.loads(data)
        entries = {name: (e["sha256"], e["bytes"]) for name, e in content["files"].items()}
        manifest = Manifest(content["base_identity"], entries)
        version = content["format"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactDamaged(f"{path.name}: its manifest cannot be read") from error
    # One spelling only: a flipped bit in white space is a change like any other.
    if version != _FORMAT or data != _canonical(content):
        raise ArtifactDamaged(f"{path.name}: its manifest is not as written")
    return manifest


def _read_file(path: Path, name: str, sha256: str, size: int) -> bytes:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ArtifactDamaged(f"{path.name}: its manifest points outside")
    data = _read(path, name)
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise ArtifactDamaged(f"{path.name}: {name} is not as written")
    return data


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise ArtifactDamaged(f"{path.name}: {name} is missing") from error
    except OSError as error:
        raise ArtifactUnreadable(f"{path.name}: {name}: {error.strerror}") from error


def _canonical(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _write_durably(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _fsync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
