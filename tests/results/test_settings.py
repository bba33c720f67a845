"""Which runs are repetitions of one another, and what they are called: by full key paths, not by last words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raykd.results.questions import Comparison
from raykd.results.reader import Run
from raykd.results.settings import Conditions


def run_of(path: Path, run_id: str, *, method: dict[str, Any] | None = None, **scenario: Any) -> Run:
    """A run without tables."""
    return Run(
        path / run_id, {"run_id": run_id, "status": "done"}, {"seed": 0, "method": {"name": "m"} | (method or {}), **scenario}
    )


def groups(**shots: int) -> list[dict[str, Any]]:
    return [{"group": name, "count": 1, "labels": {"num_shots": number}} for name, number in shots.items()]


def conditions(runs: list[Run]) -> list[str]:
    return Conditions.of(runs).table()["condition"].tolist()


def test_groups_that_differ_in_one_setting_are_told_apart_by_name(tmp_path: Path) -> None:
    pairs = [(a, b) for a in (1, 2) for b in (1, 2, 4, 8)]
    runs = [run_of(tmp_path, f"{a}-{b}", clients=groups(community=a, rural=b)) for a, b in pairs]
    assert conditions(runs) == [f"community num_shots {a}, rural num_shots {b}" for a, b in pairs]
    assert Comparison(tuple(runs)).settings["cell"].nunique() == 8


def test_a_setting_that_all_groups_share_has_no_group_in_its_name(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, str(n), clients=groups(community=n, rural=n)) for n in (1, 2)]
    assert conditions(runs) == ["num_shots 1", "num_shots 2"]
    some = [run_of(tmp_path, str(n), clients=groups(a=n, b=n, c=3 - n)) for n in (1, 2)]
    assert conditions(some) == ["a and b num_shots 1, c num_shots 2", "a and b num_shots 2, c num_shots 1"]


def test_the_order_of_groups_is_no_setting(tmp_path: Path) -> None:
    orders = (groups(x=1, y=2), groups(y=2, x=1))
    assert conditions([run_of(tmp_path, str(number), clients=clients) for number, clients in enumerate(orders)]) == ["", ""]


def test_a_group_that_a_run_lacks_is_told_once(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, "a", clients=groups(x=1, y=2)), run_of(tmp_path, "b", clients=groups(x=1))]
    assert conditions(runs) == ["", "without y"]


def test_equal_last_words_are_told_by_the_shortest_ending_that_none_shares(tmp_path: Path) -> None:
    def widths(student: int, teacher: int) -> dict[str, Any]:
        return {"student": {"network": {"width": student}}, "repository": {"teacher": {"network": {"width": teacher}}}}

    runs = [run_of(tmp_path, f"{a}{b}", **widths(a, b)) for a in (4, 8) for b in (4, 16)]
    assert conditions(runs)[1] == "student.network.width 4, teacher.network.width 16"
    assert len(set(conditions(runs))) == 4


@pytest.mark.parametrize(("key", "name"), [("seed", "source.seed"), ("noise", "noise")])
def test_a_setting_never_takes_the_place_of_a_column(tmp_path: Path, key: str, name: str) -> None:
    runs = [run_of(tmp_path, str(n), source={key: n}) for n in (5, 6)]
    table = Conditions.of(runs).table()
    assert table["seed"].tolist() == [0, 0] and table[name].tolist() == ["5", "6"]


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (0.1, 0.10, ["", ""]),
        (2, 2.0, ["", ""]),
        ([1, 2.0], [1.0, 2], ["", ""]),
        (1, "1", ["x 1", "x 1 (2)"]),
        (True, "true", ["x true", "x true (2)"]),
        ([1, 2], [2, 1], ["x [1, 2]", "x [2, 1]"]),
        (None, 1, ["x null", "x 1"]),
        ("a, y 2", "a", ["x a, y 2", "x a"]),
    ],
)
def test_equal_text_means_equal_values(tmp_path: Path, one: object, other: object, words: list[str]) -> None:
    assert conditions([run_of(tmp_path, "a", training={"x": one}), run_of(tmp_path, "b", training={"x": other})]) == words


def drawn(seed: int, low: float = 0.0, *, count: int = 2) -> list[dict[str, Any]]:
    """Sites that drew their noise and one edge, as a resolved scenario has them."""
    noise = {site: low + 0.01 * seed + 0.001 * site for site in range(count)}
    return [
        {
            "group": "rural", "name": f"rural-{site}", "count": 1, "labels": {"num_shots": 2},
            "spacing_mm": [3 + value, 1.0, 1.0], "scanner": {"noise": value, "blur_mm": 0.0},
            "drawn": {"spacing_mm[0]": 3 + value, "scanner": {"noise": value}, "scanner.noise": value},
        }
        for site, value in noise.items()
    ]  # fmt: skip


def test_what_is_drawn_is_no_condition(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, str(seed), seed=seed, clients=drawn(seed)) for seed in range(3)]
    assert conditions(runs) == ["", "", ""]
    cells = Comparison(tuple(runs)).cells
    assert len(cells) == 1 and cells["num_seeds"].tolist() == [3]


def test_what_is_varied_beside_a_draw_is(tmp_path: Path) -> None:
    fixed = [{"group": "rural", "count": 2, "labels": {"num_shots": 2}, "spacing_mm": [3, 1.0, 1.0], "scanner": {"noise": 0.5}}]
    runs = [run_of(tmp_path, f"d{seed}", seed=seed, clients=drawn(seed)) for seed in (0, 1)]
    runs += [run_of(tmp_path, f"f{seed}", seed=seed, clients=fixed) for seed in (0, 1)]
    words = conditions(runs)
    assert words[0] == words[1] != words[2] == words[3]


def test_loose_runs_of_one_seed_that_drew_otherwise_are_never_one_condition(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, f"{low}-{seed}", seed=seed, clients=drawn(seed, low)) for low in (0.0, 0.5) for seed in (0, 1)]
    assert len(set(conditions(runs))) == 4


def test_a_study_knows_which_distributions_it_varied(tmp_path: Path) -> None:
    cells, runs = [], []
    for low in (0.0, 0.5):
        for seed in (0, 1):
            name = f"{low}-{seed}"
            varied = {"clients.*.scanner": {"noise": {"uniform": [low, low + 0.1]}}}
            cells.append({"cell": name, "method": "m", "varied": varied, "seed": seed, "scenario_hash": "h"})
            run = run_of(tmp_path, name, seed=seed, clients=drawn(seed, low))
            runs.append(Run(run.path, {**run.manifest, "scenario_hash": "h"}, run.scenario))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"cells": cells}))
    words = conditions(runs)
    assert words[0] == words[1] != words[2] == words[3]
    assert words[0] == 'scanner {"noise": {"uniform": [0, 0.1]}}'


def test_methods_of_one_label_are_told_apart_by_all_their_settings(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, f"{a}{b}", method={"student": {"t": a}, "teacher": {"t": b}}) for a in (1, 2) for b in (1, 2)]
    assert Conditions.of(runs).labels["12"] == "m, student.t 1, teacher.t 2"
    assert len(set(Conditions.of(runs).labels.values())) == 4
    others = [run_of(tmp_path, "p"), run_of(tmp_path, "q", method={"name": "n"})]
    assert Conditions.of(others).table()["method"].tolist() == ["m", "n"]


def test_settings_that_a_method_does_not_read_are_not_told_with_it(tmp_path: Path) -> None:
    """A study of the teacher's steps: local trains none, and its two cells are one thing that was run twice."""
    runs = []
    for name, unused in (("local", ["repository"]), ("dual_kd", [])):
        for steps in (100, 200):
            run = run_of(tmp_path, f"{name}-{steps}", method={"name": name}, repository={"teacher": {"num_steps": steps}})
            runs.append(Run(run.path, {**run.manifest, "unused": unused}, run.scenario))
    labels = Comparison(tuple(runs)).short_labels
    assert list(labels.values()) == ["local", "local", "dual_kd, num_steps 100", "dual_kd, num_steps 200"]
    unknown = Comparison(tuple(Run(run.path, {"run_id": run.run_id, "status": "done"}, run.scenario) for run in runs)).short_labels
    assert unknown[0] == "local, num_steps 100"


def cells_of(tmp_path: Path, pairs: list[tuple[int, float]], key: str) -> Comparison:
    runs = []
    for shots, value in pairs:
        clients = [{"group": "a", "labels": {"num_shots": shots}}, {"group": "b", "labels": {"num_shots": shots}}]
        if key == "slices":
            clients = [{**one, "labels": {"num_shots": shots, "slices": value}} for one in clients]
        else:
            clients[1] = {"group": "b", "labels": {"num_shots": int(value)}}
        run = run_of(tmp_path, f"{shots}-{value}", clients=clients)
        runs.append(run)
    return Comparison(tuple(runs))


def test_labels_are_no_condition_where_they_are_the_question(tmp_path: Path) -> None:
    comparison = cells_of(tmp_path, [(1, 1.0), (2, 1.0), (4, 1.0)], "slices")
    comparison.settings["num_labels"] = [2.0, 4.0, 8.0]
    assert comparison.cells["level"].tolist() == ["", "", ""]
    named = [run_of(tmp_path, str(n), training={"num_shots": n}) for n in (1, 2)]
    assert Comparison(tuple(named)).cells["level"].tolist() == ["num_shots 1", "num_shots 2"]


def test_cells_with_as_many_labels_are_of_different_levels(tmp_path: Path) -> None:
    by_slices = cells_of(tmp_path, [(1, 0.5), (1, 1.0), (2, 0.5), (2, 1.0)], "slices")
    by_slices.settings["num_labels"] = [2.0, 2.0, 4.0, 4.0]
    assert by_slices.cells["level"].tolist() == ["slices 0.5", "slices 1", "slices 0.5", "slices 1"]
    by_site = cells_of(tmp_path, [(1, 3), (3, 1), (1, 1), (3, 3)], "num_shots")
    by_site.settings["num_labels"] = [4.0, 4.0, 2.0, 6.0]
    assert len(by_site.cells.drop_duplicates(["level", "num_labels"])) == 4
