"""The wheel holds all that a user needs: installed by itself, without the checkout, it writes a scenario, checks it and runs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from raykd.commands.shipped import FOLDERS

ROOT = Path(__file__).parent.parent
Raykd = Callable[..., str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without network."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install 'raykd[test]'")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("raykd-*.whl")
    return file


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Raykd:
    """Runs a command of the wheel's own raykd in an empty folder; what raykd depends on is that of this environment."""
    site, here = tmp_path / "site", tmp_path / "here"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    here.mkdir()
    env = {**os.environ, "PYTHONPATH": str(site)}

    def installed(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=here, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert installed("-c", "import raykd; print(raykd.__file__)").strip() == str(site / "raykd/__init__.py")
    return installed


def test_every_scenario_and_the_prices_are_in_the_wheel_once(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name.removeprefix("raykd/_shipped/") for name in names if name.startswith("raykd/_shipped/")}
    folders = ("", "base/", *(f"{folder}/" for folder in FOLDERS))
    scenarios = {path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / "scenarios" / folder).glob("*.yaml")}
    assert len(scenarios) > 80
    schemas = {f"scenarios/{name}.schema.json" for name in ("scenario", "study")}
    assert shipped == {*scenarios, *schemas, "prices.yaml"}
    assert len(names) == len(set(names)) and not any(name.startswith("tests") for name in names)


@pytest.mark.slow
def test_the_wheel_by_itself_writes_checks_and_runs_a_scenario(installed: Raykd) -> None:
    raykd = ("-m", "raykd.cli")
    assert installed(*raykd, "new", "--from", "quickstart").split() == ["quickstart-four-knees.yaml", "quickstart.yaml"]
    assert installed(*raykd, "new", "--from", "gallery/one-shot").split()[-1] == "one-shot.yaml"
    assert installed(*raykd, "new", "--from", "prices").split() == ["prices.yaml"]
    assert "studies/knowledge" in installed(*raykd, "list", "scenarios")
    assert installed(*raykd, "check", "quickstart.yaml", "one-shot.yaml").count(": fine") == 2
    installed(*raykd, "new", "--from", "smoke", "mine")
    options = ("--set", "federation.rounds=1", "--backend", "in-process", "--quiet")
    run_dir = installed(*raykd, "run", "mine.yaml", *options).split()[-1]
    assert run_dir == "runs/mine"
    assert installed(*raykd, "report", run_dir, "--economics", "prices.yaml").strip() == "runs/mine/report.html"
