import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raykd.results.columns import SCHEMA_VERSION, VERSION_KEY
from raykd.results.export import export_tables
from raykd.results.reader import find_run_dirs, load_runs, open_run
from raykd.results.schema import TABLES, measured_columns
from raykd.results.writer import RunWriter, create_run_dir, new_manifest
from raykd.scenario.errors import RaykdError

COMMON = {"run_id": "run-1", "scenario": "knees", "method": "fedavg", "seed": 3}
SAMPLES = {pa.int64(): 5, pa.float64(): 0.25, pa.string(): "word", pa.bool_(): True, pa.binary(): b"\x00\x01\xff"}


def start(path: Path, **common: str | int) -> RunWriter:
    path.mkdir(parents=True)
    writer = RunWriter(path, {**COMMON, **common})
    writer.write_manifest(new_manifest("0123", str(writer.common["run_id"])))
    (path / "scenario.yaml").write_text("name: knees\nclasses: [a, b]\n")
    return writer


@pytest.mark.parametrize("name", TABLES)
def test_a_row_comes_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    own = [column for column in TABLES[name].columns if column.name not in COMMON]
    row = {column.name: SAMPLES[column.type] for column in own}
    start(tmp_path / "run").write(name, [row], "p")
    frame = open_run(tmp_path / "run").table(name)
    assert frame.iloc[0].to_dict() == {**COMMON, **row}
    assert getattr(open_run(tmp_path / "run"), name).equals(frame)


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_table_has_the_columns_and_types_of_a_full_one(tmp_path: Path, name: str) -> None:
    writer = start(tmp_path / "run")
    empty = open_run(tmp_path / "run").table(name)
    required = {c.name: SAMPLES[c.type] for c in TABLES[name].columns if c.is_required and c.name not in COMMON}
    writer.write(name, [required], "p")
    full = open_run(tmp_path / "run").table(name)
    assert len(empty) == 0 and len(full) == 1
    assert list(empty.columns) == [c.name for c in TABLES[name].columns] == list(full.columns)
    kind = {column: str(dtype) for column, dtype in full.dtypes.items()}
    assert {column: str(dtype) for column, dtype in empty.dtypes.items()} == kind


def test_types_in_pandas(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    key = {"round": 0, "client_id": 1, "split": "test", "case_id": "c", "model": "global", "class_index": 1, "class_name": "a"}
    writer.write("cases", [{**key, "dsc": 0.5}, {**key, "dsc": 0.5, "is_ref_empty": False}], "p")
    cases = open_run(tmp_path / "run").cases
    assert isinstance(cases["method"].dtype, pd.CategoricalDtype)
    assert cases["round"].dtype == pd.Int64Dtype()
    assert cases["is_ref_empty"].dtype == pd.BooleanDtype() and cases["is_ref_empty"].isna().tolist() == [True, False]
    assert cases["nsd"].isna().all()


def test_a_part_written_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    writer.write("rounds", [{"round": 0, "num_selected": 1}, {"round": 1, "num_selected": 1}], "round-0")
    writer.write("rounds", [{"round": 0, "num_selected": 4}], "round-0")
    writer.write("rounds", [{"round": 1, "num_selected": 5}], "round-1")
    assert open_run(tmp_path / "run").rounds["num_selected"].tolist() == [4, 5]
    assert sorted(p.name for p in (tmp_path / "run/tables/rounds").iterdir()) == ["round-0.parquet", "round-1.parquet"]


def test_a_file_left_aside_by_a_crash_is_not_read(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    writer.write("rounds", [{"round": 0}], "round-0")
    (tmp_path / "run/tables/rounds/.round-1.parquet.aside").write_bytes(b"half")
    (tmp_path / "run/tables/rounds/.hidden.parquet").write_bytes(b"half")
    assert len(open_run(tmp_path / "run").rounds) == 1


def test_files_are_compressed_checksummed_and_versioned(tmp_path: Path) -> None:
    start(tmp_path / "run").write("rounds", [{"round": index} for index in range(100)], "p")
    path = tmp_path / "run/tables/rounds/p.parquet"
    file = pq.ParquetFile(path)
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.schema_arrow.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()
    content = bytearray(path.read_bytes())
    chunk = file.metadata.row_group(0).column(4)
    content[chunk.dictionary_page_offset + chunk.total_compressed_size - 1] ^= 0x01
    path.write_bytes(content)
    with pytest.raises(RaykdError, match=r"p\.parquet: the file is damaged"):
        _ = open_run(tmp_path / "run").rounds


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        ("rounds", {"round": 0, "num_selcted": 1}, "no column 'num_selcted'; did you mean 'num_selected'"),
        ("rounds", {"num_selected": 1}, "row 0: 'round' is required"),
        ("rounds", {"round": 1.5}, "column 'round' must hold int64, got 1.5"),
        ("rounds", {"round": "1"}, "column 'round' must hold int64, got '1'"),
        ("rounds", {"round": 0, "loss_new": 1.0}, "no column 'loss_new'"),
        ("training", {"round": 0, "client_id": 0, "loss_": 1.0}, "no column 'loss_'"),
        ("training", {"round": 0, "client_id": 0, "loss_x": "high"}, "column 'loss_x' must hold double, got 'high'"),
        ("round", {"round": 0}, "unknown table 'round'; did you mean 'rounds'"),
    ],
)
def test_what_the_schema_does_not_have_is_refused(tmp_path: Path, table: str, row: dict, message: str) -> None:
    writer = start(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        writer.write(table, [row], "p")
    assert not (tmp_path / "run/tables").exists()


@pytest.mark.parametrize("part", ["../x", "", ".hidden", "a/b"])
def test_a_part_cannot_leave_its_folder(tmp_path: Path, part: str) -> None:
    with pytest.raises(ValueError, match="name of a part"):
        start(tmp_path / "run").write("rounds", [{"round": 0}], part)


def test_common_columns_are_all_given() -> None:
    with pytest.raises(ValueError, match="must have the keys"):
        RunWriter(Path(), {"run_id": "x"})


def test_a_method_adds_loss_terms_of_its_own(tmp_path: Path) -> None:
    first = start(tmp_path / "study/a", run_id="a")
    first.write("training", [{"round": 0, "client_id": 0, "loss_proximal": 0.5, "share_trusted": 0.25}], "p")
    start(tmp_path / "study/b", run_id="b").write("training", [{"round": 0, "client_id": 0, "loss_total": 2}], "p")
    training = load_runs([tmp_path / "study"]).training.set_index("run_id")
    assert training.loc["a", "loss_proximal"] == 0.5 and training.loc["a", "share_trusted"] == 0.25
    assert training.loc["b", "loss_total"] == 2.0 and pd.isna(training.loc["b", "loss_proximal"])


def test_columns_that_a_clock_decides_are_known() -> None:
    assert measured_columns("rounds") == ("wall_s", "simulated_s", "engine_s", "server_s")
    assert measured_columns("training") == ("train_s", "coding_s", "simulated_s", "peak_rss_mb")
    assert measured_columns("transfers") == measured_columns("cases") == ()


def test_runs_are_found_below_a_study_each_once(tmp_path: Path) -> None:
    start(tmp_path / "study/fedavg/seed-0", run_id="a").write("rounds", [{"round": 0}], "p")
    start(tmp_path / "study/local", run_id="b", method="local").write("rounds", [{"round": 0}, {"round": 1}], "p")
    tables = load_runs([tmp_path / "study/local", tmp_path / "study"])
    assert [run.run_id for run in tables.runs] == ["b", "a"]
    assert tables.rounds.groupby("method", observed=True).size().to_dict() == {"fedavg": 1, "local": 2}
    assert tables.runs[0].scenario == {"name": "knees", "classes": ["a", "b"]}


def test_runs_too_deep_are_not_found(tmp_path: Path) -> None:
    start(tmp_path / "1/2/3/4")
    assert find_run_dirs([tmp_path / "1"]) == (tmp_path / "1/2/3/4",)
    with pytest.raises(RaykdError, match="no run was found"):
        find_run_dirs([tmp_path])


def test_a_run_beside_its_reproductions_keeps_every_row_under_a_name_of_its_own(tmp_path: Path) -> None:
    """Two of them in directories of one name; files stay as they are."""
    for place in ("run", "again", "other/again"):
        start(tmp_path / place).write("rounds", [{"round": 0}], "p")
    places = [tmp_path / place for place in ("run", "again", "other/again")]
    tables, names = load_runs(places), ["run-1", "run-1 (again)", "run-1 (again) (2)"]
    assert [run.run_id for run in tables.runs] == tables.rounds["run_id"].astype(str).tolist() == names
    assert [run.rounds["run_id"].astype(str).tolist() for run in tables.runs] == [[name] for name in names]
    assert open_run(places[1]).run_id == "run-1"
    written = export_tables(tmp_path, tmp_path / "out", "parquet")
    assert len(pq.read_table(next(iter(written)))["run_id"].unique()) == 3


def test_directories_that_are_no_runs_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RaykdError, match="no such directory"):
        load_runs([tmp_path / "absent"])
    with pytest.raises(RaykdError, match=r"hardly started: it has no manifest\.json"):
        open_run(tmp_path)
    start(tmp_path / "a")
    start(tmp_path / "b")
    (tmp_path / "a/manifest.json").write_text("{half")
    with pytest.raises(RaykdError, match=r"manifest\.json: the file is damaged"):
        open_run(tmp_path / "a")
    (tmp_path / "b/scenario.yaml").write_text("- a list\n")
    with pytest.raises(RaykdError, match="keys and values, got list"):
        open_run(tmp_path / "b")
    with pytest.raises(RaykdError, match="no table 'case'; did you mean 'cases'"):
        open_run(start(tmp_path / "c").run_dir).table("case")


def test_a_table_of_a_later_raykd_is_refused(tmp_path: Path) -> None:
    start(tmp_path / "run").write("rounds", [{"round": 0}], "p")
    path = tmp_path / "run/tables/rounds/p.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: str(SCHEMA_VERSION + 1).encode()}), path)
    with pytest.raises(RaykdError, match="install a later one"):
        _ = open_run(tmp_path / "run").rounds


def test_manifest(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["status"] == "running" and manifest["ended_at"] is None and manifest["scenario_hash"] == "0123"
    assert all(manifest[name] for name in ("raykd", "torch", "ray", "monai", "torchio", "python", "started_at"))
    assert manifest["machine"]["num_cpus"] >= 1 and manifest["machine"]["memory_bytes"] > 2**28
    writer.update_manifest(num_resumed=1)
    assert open_run(tmp_path / "run").manifest == {**manifest, "num_resumed": 1}
    writer.update_manifest(status="done")
    ended = open_run(tmp_path / "run").manifest
    assert ended["status"] == "done" and ended["ended_at"] >= manifest["started_at"]
    with pytest.raises(ValueError, match="status must be one of"):
        writer.update_manifest(status="finished")


def test_commit_is_null_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert new_manifest("0", "r")["git_commit"] is None


def test_a_run_directory_starts_empty(tmp_path: Path) -> None:
    assert create_run_dir(tmp_path / "a/b") == tmp_path / "a/b"
    assert create_run_dir(tmp_path / "a/b").is_dir()
    (tmp_path / "a/b/run.log").touch()
    with pytest.raises(RaykdError, match=r"needs an empty directory, got one that holds run\.log"):
        create_run_dir(tmp_path / "a/b")
    with pytest.raises(RaykdError, match="cannot be created"):
        create_run_dir(tmp_path / "a/b/run.log/c")


def test_every_file_says_what_its_columns_mean(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    writer.write("training", [{"round": 0, "client_id": 0, "train_s": 2.0, "loss_proximal": 0.5}], "p")
    schema = pq.read_schema(tmp_path / "run/tables/training/p.parquet")
    assert schema.field("train_s").metadata == {b"meaning": b"duration of the local update", b"unit": b"s", b"is_measured": b"true"}
    assert all(schema.field(column.name).metadata[b"meaning"] == column.meaning.encode() for column in TABLES["training"].columns)
    told = load_runs([tmp_path]).dictionary.set_index(["table", "column"])
    assert told.loc[("clients", "link_up_mbps"), ["unit", "meaning"]].tolist() == ["Mbit/s", "client to server"]
    assert told.loc[("training", "loss_proximal"), "meaning"] == "as the method that adds it says"
    assert told.loc["training"].index[told.loc["training", "is_measured"]].tolist() == [
        "train_s",
        "coding_s",
        "simulated_s",
        "peak_rss_mb",
    ]


def test_a_run_of_the_first_version_is_read_for_ever() -> None:
    """Written before files said what their columns mean; never to be written again."""
    old = Path(__file__).parent / "old_runs"
    tables = load_runs([old / "v1"])
    sizes = {"clients": 3, "rounds": 1, "training": 3, "cases": 62, "transfers": 9, "events": 0, "previews": 6, "records": 6}
    assert {name: len(tables.table(name)) for name in sizes} == sizes and len(tables.teachers) == 20
    assert tables.training["share_trust"].notna().all() and tables.cases["volume_ref_mm3"].gt(0).any()
    assert set(tables.clients["client_name"]) == {"community-0", "community-1", "university"}
    told = tables.dictionary.set_index(["table", "column"])
    assert told.loc[("cases", "hd95_mm"), "unit"] == "mm" and ("training", "share_trust") in told.index


def test_before_version_2_an_empty_reference_was_scored_and_is_read_as_if_it_were_not(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    key = {"round": 0, "client_id": 1, "split": "test", "case_id": "c", "model": "global", "class_index": 1, "class_name": "a"}
    scores = {"dsc": 1.0, "nsd": 1.0, "hd95_mm": 0.0, "assd_mm": 0.0}
    rows = [{**key, **scores, "is_ref_empty": is_empty, "volume_pred_mm3": 7.0} for is_empty in (True, False, None)]
    writer.write("cases", rows, "p")
    path = tmp_path / "run/tables/cases/p.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["reference"]).replace_schema_metadata({VERSION_KEY: b"1"}), path)
    cases = open_run(tmp_path / "run").cases
    assert all(cases[name].isna().tolist() == [True, False, False] for name in scores)
    assert cases["volume_pred_mm3"].tolist() == [7.0] * 3 and cases["reference"].isna().all()


@pytest.mark.parametrize("as_given", [str, Path, lambda path: [path], lambda path: (str(path),)])
@pytest.mark.parametrize("is_absolute", [True, False])
def test_one_directory_is_opened_in_whatever_form_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_given: Callable[[Path], Any], is_absolute: bool
) -> None:
    start(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run" if is_absolute else Path("run")
    assert find_run_dirs(as_given(folder)) == (folder,)
    assert [run.path for run in load_runs(as_given(folder)).runs] == [folder] == [open_run(as_given(folder)).path]


def test_open_run_opens_one_and_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RaykdError, match="opens one run, got 2"):
        open_run([tmp_path, tmp_path])
    with pytest.raises(RaykdError, match="no directory was given"):
        load_runs([])


def test_the_text_of_a_run_is_short_and_says_what_it_holds(tmp_path: Path) -> None:
    start(tmp_path / "run").write("rounds", [{"round": 0, "num_selected": 1}, {"round": 1, "num_selected": 1}], "p")
    run = open_run(tmp_path / "run")
    assert repr(run) == f"Run of knees, ?, seed ?: running\n  path: {run.path}\n  tables: rounds 2"
    (run.path / "tables/rounds/p.parquet").write_bytes(b"no parquet")
    assert "rounds ?" in repr(run)
    assert repr(replace(run, without=frozenset({"rounds"}))).endswith("tables: none has rows")


def test_the_text_of_many_runs_has_ten_lines_at_most(tmp_path: Path) -> None:
    for number in range(12):
        writer = start(tmp_path / f"run-{number:02d}", run_id=f"run-{number}")
        writer.write("rounds", [{"round": 0, "num_selected": 1}], "p")
    lines = repr(load_runs(tmp_path)).splitlines()
    assert len(lines) <= 10 and lines[0] == "Tables of 12 runs"
    assert "  and 7 more" in lines and lines[-1] == "  tables: rounds 12"
