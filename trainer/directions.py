"""Style directions on disk: one file per base model, found by the model's checksum.

`python -m backend.direction_command` makes them. Knows nothing of how they are made and used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


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


def read_directions(
    folder: Path, base_identity: str, names: Sequence[str] | None = None
) -> Tensor | None:
    """(K, P, H) fp32 for this base model, or None where none were made.

    Args:
        names: of the styles they must lead to, in this order; None takes what there is.

    Raises:
        ValueError: the file cannot be read, or is another model's or of other styles.
    """
    path = folder / f"directions-{base_identity[:16]}.safetensors"
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata, directions = file.metadata() or {}, file.get_tensor("directions")
        kept = json.loads(metadata.get("names", "null"))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}; remove it or make it again") from error
    if metadata.get("base_identity") != base_identity:
        raise ValueError(f"{path} belongs to another base model; make it again")
    if names is not None and kept != list(names):
        raise ValueError(f"{path} was made for other styles ({kept}); make it again")
    read: Tensor = directions.to(torch.float32)
    return read
