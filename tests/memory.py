"""How a running process holds its memory, from Linux's own account of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


def mapped_mb(pid: int, name: str) -> dict[str, float]:
    """Figures of all mappings of files with `name` in their path: Rss, Private_Dirty, …, in MB."""
    figures: Counter[str] = Counter()
    counts = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, rest = line.partition(":")
        value = rest.split()
        if len(value) == 2 and value[1] == "kB":
            if counts:
                figures[key] += int(value[0])
        elif "-" in line.split(" ", 1)[0]:
            counts = name in line
    return {key: value / 1024 for key, value in figures.items()}
