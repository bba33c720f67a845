"""Tables as one file each, read by those who know nothing of raykd; and the parts of a run read in place."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pytest

from raykd.cli import main
from raykd.results.reader import load_runs
from raykd.results.writer import RunWriter, new_manifest


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two runs of two rounds; the second run's method adds a loss, and a preview has bytes."""
    for seed in (0, 1):
        path = tmp_path / "study" / f"run-{seed}"
        path.mkdir(parents=True)
        writer = RunWriter(path, {"run_id": f"r{seed}", "scenario": "s", "method": "fedavg, warm", "seed": seed})
        writer.write_manifest({**new_manifest("0", f"r{seed}"), "status": "done"})
        (path / "scenario.yaml").write_text("name: s\n")
        for number in range(2):
            extra = {"loss_extra": 0.5} if seed else {}
            writer.write("training", [{"round": number, "client_id": 0, "loss_total": 1.5, **extra}], f"round-{number}")
        pixels = {"case_id": "c", "axis": 1, "slice_index": 4, "row_mm": 1.0, "col_mm": 1.0, "rows": 1, "cols": 2, "layer": "image"}
        writer.write("previews", [{"round": 1, "client_id": 0, **pixels, "pixels": b"\x00\xff"}], "round-1")
    return tmp_path / "study"


def export(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["raykd", "export", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_each_table_becomes_one_file(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    code, out, err = export(capsys, monkeypatch, study)
    assert (code, out.strip()) == (0, str(study / "export"))
    assert sorted(path.name for path in (study / "export").iterdir()) == ["previews.parquet", "training.parquet"]
    assert "training.parquet: 4 rows" in err
    frame = pd.read_parquet(study / "export/training.parquet")
    assert frame["loss_extra"].isna().tolist() == [True, True, False, False] and frame["round"].tolist() == [0, 1, 0, 1]
    assert pd.read_parquet(study / "export/previews.parquet")["pixels"].iloc[0] == b"\x00\xff"
    assert len(load_runs([study]).runs) == 2, "what was written is no run"


def test_csv_holds_all_but_bytes(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    code, _, _ = export(capsys, monkeypatch, study, "--format", "csv", "--out", tmp_path / "csv")
    assert code == 0
    training = pd.read_csv(tmp_path / "csv/training.csv")
    assert training["method"].tolist() == ["fedavg, warm"] * 4 and training["loss_total"].tolist() == [1.5] * 4
    previews = pd.read_csv(tmp_path / "csv/previews.csv")
    assert "pixels" not in previews and previews["rows"].tolist() == [1, 1]


def test_refusals_are_sentences_and_cost_nothing(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    code, out, err = export(capsys, monkeypatch, study, "--format", "cvs")
    assert (code, out) == (2, "") and "did you mean 'csv'" in err
    assert export(capsys, monkeypatch, tmp_path / "absent")[0] == 2
    export(capsys, monkeypatch, study)
    before = (study / "export/training.parquet").read_bytes()
    part = study / "run-1/tables/training/round-1.parquet"
    part.write_bytes(part.read_bytes()[:50])
    code, _, err = export(capsys, monkeypatch, study)
    assert code == 2 and "the file is damaged" in err and "Traceback" not in err
    assert (study / "export/training.parquet").read_bytes() == before
    (tmp_path / "file").touch()
    part.unlink()
    code, _, err = export(capsys, monkeypatch, study, "--out", tmp_path / "file")
    assert code == 2 and "cannot be written" in err


def test_a_run_s_parts_are_read_in_place_by_others(study: Path) -> None:
    """DuckDB, polars and pyarrow's datasets find the same numbers in the same files."""
    parts = study.glob("*/tables/training/*.parquet")
    files = [str(path) for path in sorted(parts)]
    mine = float(load_runs([study]).training["loss_extra"].sum())
    assert ds.dataset(files[-1:]).to_table()["loss_extra"].to_pylist() == [0.5] and mine == 1.0
    assert len(ds.dataset(files).to_table(columns=["loss_total"])) == 4


def test_duckdb_reads_them(study: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    query = f"select sum(loss_extra), count(*) from read_parquet('{study}/*/tables/training/*.parquet', union_by_name=true)"
    assert duckdb.sql(query).fetchall() == [(1.0, 4)]


def test_polars_reads_them(study: Path) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.concat([polars.read_parquet(path) for path in sorted(study.glob("*/tables/training/*.parquet"))], how="diagonal")
    assert (frame["loss_extra"].sum(), len(frame)) == (1.0, 4)
