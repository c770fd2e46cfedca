"""Fixtures every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend import base_model


@pytest.fixture(scope="session")
def embedded_model_path() -> Path:
    """The embedded model's folder, fetched and prepared once per machine."""
    return base_model.resolve("embedded", None, Path("~/.cache/attune").expanduser()).path
