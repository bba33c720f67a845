from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_runs import write_study


@pytest.fixture(scope="session")
def study_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "knees")


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Path]:
    return lambda **options: write_study(tmp_path / "study", **options)
