"""Tables as text fit the terminal, whatever script is in them."""

from __future__ import annotations

import pytest

from raykd.commands.tables import aligned, display_width, wrapped

HOSPITAL, ARABIC, EMOJI = "大阪市立総合医療センター", "مستشفى", "🏥 clinic"


@pytest.mark.parametrize(
    ("text", "columns"), [(HOSPITAL, 24), (ARABIC, 6), (EMOJI, 9), ("left kidney", 11), ("e\u0301", 1), ("", 0), ("1 × 2", 5)]
)
def test_width_is_counted_in_columns_of_a_terminal(text: str, columns: int) -> None:
    assert display_width(text) == columns


def test_columns_begin_at_the_same_place_below_names_in_any_script() -> None:
    rows = [["client", "dsc"], *([name, "0.5"] for name in (HOSPITAL, ARABIC, EMOJI, "left kidney"))]
    lines = aligned(rows, left=(0,)).splitlines()
    assert {display_width(line) for line in lines} == {24 + 2 + 3}
    assert {display_width(line[: line.index("0.5")]) for line in lines[1:]} == {26}


def test_a_table_that_is_too_wide_goes_on_below_with_its_keys() -> None:
    rows = [["client", "one", "two", "three"], ["north", "1" * 20, "2" * 20, "3" * 20], [HOSPITAL[:4], "a", "b", "c"]]
    text = aligned(rows, left=(0,), width=60)
    parts = [part.splitlines() for part in text.split("\n\n")]
    assert [part[0].split() for part in parts] == [["client", "one", "two"], ["client", "three"]]
    assert [line.split()[0] for part in parts for line in part[1:]] == ["north", HOSPITAL[:4]] * 2
    assert max(display_width(line) for part in parts for line in part) <= 60


def test_keys_that_are_too_wide_stand_on_a_line_of_their_own() -> None:
    rows = [["cell", "state", "seed"], ["c" * 50, "to do", "7"]]
    assert aligned(rows, left=(0, 1), width=60).splitlines() == ["cell", "  state  seed", "c" * 50, "  to do     7"]


def test_nothing_is_fitted_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert len(aligned([["x" * 300, "y" * 300]])) == 602
    assert wrapped("word " * 100) == "word " * 100
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, wrapped("word " * 100, "  ").splitlines())) <= 80
    assert aligned([["k", "x" * 60, "y" * 60]]) == f"k  {'x' * 60}\n\nk  {'y' * 60}"
