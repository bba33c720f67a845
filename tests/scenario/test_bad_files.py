"""Every bad file is refused with exactly the lines that its first comments expect."""

from __future__ import annotations

from pathlib import Path

import pytest

from raykd.scenario.errors import ScenarioError
from raykd.scenario.load import load_scenario

BAD = Path(__file__).parent / "bad"
FILES = sorted(BAD.glob("*.yaml"))


def test_there_is_a_corpus() -> None:
    assert len(FILES) >= 60


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_bad_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BAD)
    lines = file.read_text(encoding="utf-8").splitlines()
    expected = [line.removeprefix("# expect: ") for line in lines if line.startswith("# expect: ")]
    with pytest.raises(ScenarioError) as refusal:
        load_scenario(Path(file.name))
    assert str(refusal.value).split("\n") == expected
