"""Style directions on disk: one file per base model, found by the model's checksum.

Those of the embedded model come with Attune (`trainer/data`); `python -m backend.direction_command`
makes them for any other. Knows nothing of how they are made and used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

PACKAGED = Path(__file__).parent / "data"


def write_directions(
    folder: Path, directions: Tensor, names: Sequence[str], base_identity: str
) -> Path:
    """Keep (K, P, H) directions in half precision under the base model's checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"directions-{base_identity[:16]}.safetensors"
    partial = path.with_suffix(".partial")
    metadata = {"base_identity": base_identity, "names": json.dumps(list(names))}
    save_file({"directions": directions.half().contiguous()}, partial, metadata)
    partial.replace(path)
    return path


def read_directions(folders: Sequence[Path], base_identity: str) -> Tensor | None:
    """(K, P, H) fp32 from the first folder that has some for this base model, or None.

    Raises:
        ValueError: the file there cannot be read, or is another model's.
    """
    for folder in folders:
        path = folder / f"directions-{base_identity[:16]}.safetensors"
        if path.exists():
            return _read(path, base_identity)
    return None


def _read(path: Path, base_identity: str) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            metadata, directions = file.metadata() or {}, file.get_tensor("directions")
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}; remove it or make it again") from error
    if metadata.get("base_identity") != base_identity:
        raise ValueError(f"{path} belongs to another base model; make it again")
    read: Tensor = directions.to(torch.float32)
    return read
