"""What tests of the model need where the app's own requirements are not installed.

On a machine with a GPU and torch, but without a database and a browser:

    python -m pytest --noconftest -p tests.standalone --model-folder FOLDER tests/…
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["tests.backend.engines.conftest", "tests.trainer.conftest"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--model-folder", type=Path, help="a folder with the embedded model")


@pytest.fixture(scope="session")
def embedded_model_path(request: pytest.FixtureRequest) -> Path:
    """The embedded model's folder, as told on the command line."""
    path: Path = request.config.getoption("--model-folder")
    return path
