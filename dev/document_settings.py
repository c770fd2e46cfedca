"""Prints the table of settings for OPERATIONS.md: `python -m dev.document_settings`."""

from __future__ import annotations

import sys

from backend.settings import Settings


def table() -> str:
    """One Markdown row per setting: name, default, meaning."""
    rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in ("", None) else f"`{field.default}`"
        rows.append(f"| `ATTUNE_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
