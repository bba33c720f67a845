"""A site is known by its name: runs whose clients stand in another order, or are others, are never taken for one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml

from raykd.report.costs import cost_of
from raykd.report.evidence import collect
from raykd.results.questions import Comparison, communication, differences, fairness, site_gains, worst_cases
from raykd.results.reader import Run, load_runs
from raykd.results.sites import Sites
from raykd.results.writer import RunWriter, new_manifest

LEVEL = {"university": 0.8, "rural": 0.5, "community": 0.6}
SLICE_MM = {"university": 1.0, "rural": 5.0, "community": 3.0}
GAIN = {"university": 0.01, "rural": 0.10, "community": 0.04}


def write(folder: Path, method: str, names: Sequence[str], run_id: str = "") -> None:
    """A run whose sites stand in this order: every patient of a site scores its level, under b more by the site's gain. Every
    site receives 100 bytes."""
    run_id = run_id or method
    path = folder / run_id
    path.mkdir(parents=True)
    writer = RunWriter(path, {"run_id": run_id, "scenario": "s", "method": method, "seed": 0})
    writer.write_manifest({**new_manifest("0", run_id), "status": "done", "deployed": "global"})
    groups = [{"group": name, "labels": {"num_shots": 1}} for name in names]
    (path / "scenario.yaml").write_text(yaml.safe_dump({"seed": 0, "method": {"name": method}, "clients": groups}))
    writer.write("clients", [
        {"client_id": c, "group": name, "client_name": name, "num_labelled": 1, "scanner": name,
         "spacing_i_mm": SLICE_MM[name], "spacing_j_mm": 1.0, "spacing_k_mm": 1.0} for c, name in enumerate(names)
    ], "all")  # fmt: skip
    writer.write("cases", [
        {"round": 0, "client_id": c, "split": "test", "case_id": f"p{p}", "model": "global", "class_index": 1, "class_name": "a",
         "dsc": LEVEL[name] + p / 100 + GAIN[name] * (method == "b")} for c, name in enumerate(names) for p in range(4)
    ], "all")  # fmt: skip
    sent = {"round": 0, "direction": "down", "kind": "params", "num_bytes": 100}
    writer.write("transfers", [{**sent, "client_id": c} for c in range(len(names))], "all")


def study(folder: Path, first: Sequence[str], second: Sequence[str]) -> Comparison:
    write(folder, "a", first)
    write(folder, "b", second)
    return Comparison.of(load_runs([folder]))


def test_sites_in_another_order_are_the_same_sites(tmp_path: Path) -> None:
    there = study(tmp_path, ("university", "rural", "community"), ("rural", "community", "university"))
    gains = site_gains(there, "b", "a").set_index("client_name")
    assert {name: pytest.approx(gain) for name, gain in gains["gain"].items()} == GAIN
    assert gains["slice_mm"].to_dict() == SLICE_MM and (gains["scanner"] == gains.index).all()
    assert fairness(there)["worst_site"].tolist() == ["rural", "rural"]
    assert set(worst_cases(there, 4)["client_name"]) == {"rural"}
    (row,) = differences(there, [("b", "a")]).to_dict("records")
    assert row["difference"] == pytest.approx(0.05) and row["condition"] == "" and row["num_patients"] == 12
    assert there.notes == ()


def test_runs_whose_sites_differ_say_so(tmp_path: Path) -> None:
    there = study(tmp_path, ("university", "rural"), ("rural", "community"))
    assert there.cells["condition"].tolist() == ["without community", "without university"]
    notes = " ".join(collect([tmp_path]).notes)
    assert "Sites differ between runs: community takes no part in a, without community." in notes
    assert "Sites differ between runs: university takes no part in b, without university." in notes and "matched by name" in notes


def test_every_table_has_the_number_of_the_site(tmp_path: Path) -> None:
    there = study(tmp_path, ("university", "rural", "community"), ("rural", "community", "university"))
    assert there.names == {0: "university", 1: "rural", 2: "community"}
    clients = there.table("clients")
    assert (clients["client_name"].astype(str) == clients["client_id"].map(there.names)).all()
    assert clients["client_id"].dtype == pd.Int64Dtype()
    evidence = collect([tmp_path])
    own = evidence.deployed[evidence.deployed["client_id"] == 1]
    assert own["dsc"].max() < 0.65 and evidence.name(1) == "rural"


def test_bytes_per_site_are_of_the_sites_that_a_run_has(tmp_path: Path) -> None:
    """Two runs of one cell and seed, each of two sites that receive 100 bytes, beside a study of three sites."""
    for run_id, names in (("a", ("university", "rural")), ("again", ("university", "rural")), ("b", tuple(LEVEL))):
        write(tmp_path, run_id[0], names, run_id)
    table = communication(Comparison.of(load_runs([tmp_path]))).set_index("method")
    assert table["bytes_down_per_site"].to_dict() == {"a": 100, "b": 100}
    evidence = collect([tmp_path])
    assert {label: cost_of(evidence, label).bytes_down for label in evidence.methods} == dict.fromkeys(evidence.methods, 100)


def clients_of(**runs: Sequence[str | None]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"run_id": run_id, "client_id": c, "group": "g", "client_name": name}
            for run_id, names in runs.items()
            for c, name in enumerate(names)
        ]
    )


def runs_of(*run_ids: str) -> list[Run]:
    return [Run(Path(run_id), {"run_id": run_id, "status": "done"}, {}) for run_id in run_ids]


def test_a_site_that_the_first_run_lacks_gets_a_number_of_its_own() -> None:
    sites = Sites.of(runs_of("a", "b"), clients_of(a=["x", "y"], b=["z", "x"]))
    assert sites.names == {0: "x", 1: "y", 2: "z"} and sites.by_run["b"] == {0: 2, 1: 0}
    rows = pd.DataFrame({"run_id": ["a", "b", "b", "b"], "client_id": pd.array([0, 0, 1, -1], dtype="Int64")})
    assert sites.numbered(rows)["client_id"].tolist() == [0, 2, 0, -1]


def test_two_clients_of_one_name_stay_two_and_nameless_ones_go_by_their_group() -> None:
    assert list(Sites.of(runs_of("a"), clients_of(a=["x", "x"])).names.values()) == ["x", "x (2)"]
    assert list(Sites.of(runs_of("a"), clients_of(a=[None, None])).names.values()) == ["g 0", "g 1"]


def test_rows_stay_as_they_are_where_all_runs_have_the_same_sites() -> None:
    sites = Sites.of(runs_of("a", "b"), clients_of(a=["x", "y"], b=["x", "y"]))
    rows = pd.DataFrame({"run_id": ["b"], "client_id": [1]})
    assert sites.numbered(rows) is rows and list(sites.differences({})) == []
