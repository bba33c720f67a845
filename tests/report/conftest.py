from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_runs import write_study

from raykd.report.build import Report, compose
from raykd.report.html import render_html
from raykd.report.material import Options


@pytest.fixture(scope="session")
def study_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "knees")


@pytest.fixture(scope="session")
def report(study_dir: Path) -> Report:
    """The report on `study_dir`, before it takes a format."""
    return compose([study_dir], Options())


@pytest.fixture(scope="session")
def html(report: Report) -> str:
    return render_html(report)


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Path]:
    return lambda **options: write_study(tmp_path / "study", **options)
