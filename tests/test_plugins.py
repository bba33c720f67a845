"""The method of docs/plugins.md, installed as another package would be, runs like one of raykd's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from raykd.results.reader import open_run

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python in which the page's package is installed as the page prints it, without network."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install 'raykd[test]'")
    folder, site = tmp_path / "package", tmp_path / "site"
    folder.mkdir()
    for language, name in (("python", "fedmedian.py"), ("toml", "pyproject.toml")):
        (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
        (folder / name).write_text(text, encoding="utf-8")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
        str(folder),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


def _raykd(package: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "raykd.cli", *words], capture_output=True, text=True, env=package, check=False)


def test_the_page_s_method_has_thirty_lines_or_so() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(code.splitlines()) <= 32


def test_a_method_of_another_package_is_listed_checked_and_run(package: dict[str, str], tmp_path: Path) -> None:
    listed = {row["name"]: row for row in json.loads(_raykd(package, "list", "methods", "--json").stdout)}
    assert listed["fedmedian"]["url"] == "https://arxiv.org/abs/1803.01498"
    scenario = str(ROOT / "scenarios/smoke.yaml")
    refused = _raykd(package, "check", scenario, "--set", "method={name: fedmedian, turst: 0.5}")
    assert refused.returncode == 2 and "did you mean 'trust'?" in refused.stderr
    options = ("--set", "method={name: fedmedian}", "--set", "federation.rounds=1", "--backend", "in-process", "--quiet")
    done = _raykd(package, "run", scenario, *options, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    run = open_run(tmp_path / "run")
    assert run.manifest["status"] == "done"
    assert run.table("transfers")["method"].astype(str).unique().tolist() == ["fedmedian"]
