"""What a benchmark needs to know of the device it measures: its name, its clock, its memory.

Every benchmark of the model takes `--device` and `--model`, as the app's settings do.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import torch

from backend.base_model import BaseModel, resolve

_CACHE = Path("~/.cache/attune")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--model` and `--device`."""
    parser.add_argument("--model", default="embedded", help="as ATTUNE_MODEL")
    parser.add_argument("--device", default="auto", help="as ATTUNE_DEVICE")


def found(model: str) -> BaseModel:
    """The base model of this name."""
    return resolve(model, None, _CACHE)


def called(model: str) -> str:
    """How a report calls the base model."""
    return "embedded model" if model == "embedded" else f"model {Path(model).name}"


def now_s(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def machine(device: torch.device) -> str:
    """The name of the card or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{named[0] if named else platform.processor()}, {capability}"


def kind(device: torch.device, dtype: str) -> str:
    """What readings differ by: `bfloat16` on a CPU, `cuda bfloat16` on a GPU."""
    return dtype if device.type == "cpu" else f"{device.type} {dtype}"


def begin_peak(device: torch.device) -> None:
    """Give a GPU's memory back that nothing is in, and count its peak from here on."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)


def copy_bytes_per_s(device: torch.device) -> float:
    """Bytes read and written per second by a copy within a GPU's memory; takes 2 GiB meanwhile."""
    source = torch.zeros(1 << 29, dtype=torch.int16, device=device)
    target = torch.empty_like(source)
    taken = []
    for _ in range(6):
        started = now_s(device)
        target.copy_(source)
        taken.append(now_s(device) - started)
    return 2 * source.numel() * source.element_size() / min(taken)
