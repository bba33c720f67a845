"""Which pages there are for which runs, and that what they say is what the questions answer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic_runs
import yaml
from synthetic_runs import CLIENTS, write_run, write_study
from typer.testing import CliRunner

from raykd.cli import app
from raykd.report import build_report
from raykd.report.blocks import Choice, Figures, Page, Table, Text, Viewer
from raykd.report.build import Report, compose
from raykd.report.html import render_html
from raykd.report.markdown import render_markdown
from raykd.report.material import Options
from raykd.report.pages import PAGES, failures
from raykd.report.tables import Column
from raykd.results.questions import calibration, cost_to_target, labels_saved, stages
from raykd.results.schema import TABLES
from raykd.results.writer import RunWriter
from raykd.scenario.errors import RaykdError

NAMES = [name for name, *_ in CLIENTS]


@pytest.fixture(scope="module")
def budgets(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two methods, one, two and four labels a site, three seeds."""
    study = write_study(tmp_path_factory.mktemp("budgets") / "s", methods=["local", "dual_kd"], budgets=(1, 2, 4))
    return compose([study], Options())


def page_of(report: Report, key: str) -> Page:
    return next(page for page in report.pages if page.key == key)


def words_of(page: Page) -> str:
    return " ".join(str(block.words) for block in page.blocks if isinstance(block, Text))


def tables_of(page: Page) -> dict[str, Table]:
    return {block.caption: block for block in page.blocks if isinstance(block, Table)}


def cells(found: Table, heading: str) -> list[str]:
    column = found.headings.index(heading)
    return [row.cells[column].words for row in found.rows]


def test_every_page_is_there_or_is_named_with_what_it_needs(budgets: Report, study_dir: Path) -> None:
    alone = compose([study_dir / "fedavg-seed0"], Options())
    for made in (budgets, alone):
        assert len(made.pages) + len(made.absent) == len(PAGES)
        assert not [one.needs for one in made.absent if "fault to report" in one.needs]
    assert {one.title for one in budgets.absent} == {
        "Where the teacher helps, and where it harms",
        "What leaks",
        "Is it worth its money?",
    }
    absent = {one.title: one.needs for one in alone.absent}
    assert absent["How many labels it saves"].startswith("runs with two or more label budgets")
    assert {"When it pays", "What each part adds"} <= set(absent)


def test_labels_saved_are_told_with_their_interval(budgets: Report) -> None:
    """Every doubling adds 0.05, dual_kd 0.2: with the fewest labels it is above local with the most."""
    page, saved = page_of(budgets, "labels"), labels_saved(budgets.material.comparison, "dual_kd", "local")
    assert saved["bound"].tolist() == ["at most"] * 3
    assert "To do as well as local with 16 labelled scans, dual_kd needs at most 4.0" in words_of(page)
    found = tables_of(page)["Labels needed to do as well as another method, with 95% intervals"]
    assert cells(found, "and saves") == ["0.0", "4.0", "12.0"] and cells(found, "with labelled scans") == ["4", "8", "16"]
    (figures,) = (block for block in page.blocks if isinstance(block, Figures))
    assert figures.drawings[0].data.groupby("method")["num_labels"].apply(list).to_dict() == {
        m: [4, 8, 16] for m in ("dual_kd", "local")
    }


def test_a_study_of_conditions_is_answered_condition_by_condition(budgets: Report) -> None:
    assert "gains under <strong>3 of 3 conditions</strong>, from <strong>+0.2" in budgets.answer.lead
    assert "(dsc, methods and conditions: 3 comparisons), is below 5%" in words_of(page_of(budgets, "pays"))
    found = tables_of(page_of(budgets, "pays"))["Wins and harms, with 95% intervals"]
    assert cells(found, "Outcome") == ["▲ wins"] * 3 and cells(found, "Condition") == [f"num_shots {n}" for n in (1, 2, 4)]
    assert {row.keys["condition"] for row in found.rows} == {"num_shots 1", "num_shots 2", "num_shots 4"}


def test_bytes_to_a_level_are_those_of_the_question(budgets: Report) -> None:
    found = tables_of(page_of(budgets, "communication"))["Bytes until a score is reached, with 95% intervals"]
    expected = cost_to_target(budgets.material.comparison)
    values = [row.cells[found.headings.index("Bytes until then")].value for row in found.rows]
    assert values == expected["num_bytes"].tolist() and min(values) == 0.0  # sites alone send nothing


def test_who_is_too_sure_is_told_and_drawn(report: Report) -> None:
    """By 0.15 and 0.05 too sure in every bin, 0.05 not sure enough, and one that is neither."""
    page, expected = page_of(report, "calibration"), calibration(report.material.comparison)
    assert re.search(r"Overconfident, [^:]*: local \(\+0\.1\d\); fedavg \(\+0\.0\d\)\.", words_of(page))
    assert re.search(r"Underconfident, [^:]*: dual_kd \(−0\.0\d\)\.", words_of(page))
    assert re.search(r"The least off is fedprox, with an ECE of 0\.0\d\d\.", words_of(page))
    found = tables_of(page)["How sure and how right every model is, with 95% intervals"]
    values = [row.cells[found.headings.index("How far off (ECE)")].value for row in found.rows]
    assert values == expected["ece"].tolist() and cells(found, "Model").count("teacher") == 4
    (figures,) = (block for block in page.blocks if isinstance(block, Figures))
    (drawing,) = figures.drawings
    assert set(drawing.data["model"]) == {"global", "personal"} and len(drawing.data) == 4 * 4
    assert drawing.svg.count("<title>") == 4 * 4 and "0.50 sure, right in 0.3" in drawing.svg


def test_the_worst_scans_lead_to_their_slices(budgets: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "NUM_WORST", 1000)  # all of them, and so the one whose slices were kept
    (worst,) = (
        block for block in failures.page(budgets.material) if isinstance(block, Table) and block.caption == "The worst predictions"
    )
    keys = {viewer.key: viewer for viewer in budgets.material.viewers}
    assert len(worst.rows) == 6 * 3 * len(CLIENTS) * 6 * 3  # cells, seeds, sites, scans, structures
    for row in worst.rows:
        scan, site = row.cells[:2]
        led = keys[scan.leads_to] if scan.leads_to else None
        assert (led is not None) == (scan.words == "case-0")
        assert led is None or (led.case_id, led.keys["site"]) == (scan.words, site.words)


def test_what_attacks_got_and_what_privacy_cost_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "dual_kd", 0, names=NAMES, skip=["previews"])
    writer = RunWriter(run, {"run_id": "dual_kd-0", "scenario": "two-shot-knees", "method": "dual_kd", "seed": 0})
    spent = {"round": 19, "mechanism": "upload", "unit": "client", "clip_norm": 0.1, "noise_multiplier": 1.0, "num_releases": 20}
    told = [{"neighbours": "replace_one", "epsilon_replace_one": 8.125 + c, "epsilon_add_or_remove": 4.0} for c in range(3)] + [{}]
    rows = [{**spent, **told[c], "client_id": c, "epsilon": 8.125 + c, "delta": 1e-3} for c in range(4)]
    writer.write("privacy", rows, "r")
    page = page_of(compose([run], Options()), "leaks")
    assert "features travelled, and they tell the shape" in words_of(page) and "No attack was made" in words_of(page)
    assert "Epsilon is 11.1 at most" in words_of(page)
    assert cells(tables_of(page)["Privacy spent by the end of each run"], "Epsilon") == ["8.1", "9.1", "10.1", "11.1"]
    table = tables_of(page)["Privacy spent by the end of each run"]
    # A row of an earlier raykd does not say which, and was reckoned for the latter.
    assert cells(table, "for runs in which the hidden one is") == ["another"] * 3 + ["there or not"]
    assert cells(table, "there or not") == ["4.0"] * 3 + ["11.1"]
    assert cells(table, "another") == ["8.1", "9.1", "10.1", "not reckoned"]
    attack = {"round": 19, "attack": "membership_loss", "metric": "auc", "knows": "the uploaded model", "low": 0.8, "high": 0.95}
    verdicts = [{"client_id": 0, "value": 0.9, "is_leaking": True}, {"client_id": 1, "value": 0.5, "is_leaking": False}]
    writer.write("leaks", [{**attack, **verdict} for verdict in verdicts], "r")
    writer.write("privacy", [{**spent, "client_id": 3, "epsilon": None}], "r")
    page = page_of(compose([run], Options()), "leaks")
    assert "Of 2 attacks on the uploads of the last round, 1 got beyond what is known" in words_of(page)
    assert "dual_kd, membership loss: the model's loss tells training cases from others (community-0)." in words_of(page)
    assert "unbounded" in words_of(page)
    table = tables_of(page)["Attacks on the uploads, with 95% intervals"]
    assert cells(table, "It says") == ["leaks", "nothing found"]
    assert [row.cells[table.headings.index("It reached")].detail for row in table.rows] == ["0.80 to 0.95"] * 2


def test_what_the_time_of_a_site_goes_to(report: Report) -> None:
    """Of fedavg: 20 rounds of 78 s, in which the last of four sites works for 52 and the first for 13 s a round."""
    page, expected = page_of(report, "time"), stages(report.material.comparison)
    found = tables_of(page)["Where the time of each site goes"]
    assert [row.cells[found.headings.index("Waiting")].value for row in found.rows] == expected["wait_s"].tolist()
    fedavg = [row for row in found.rows if row.keys["method"] == "fedavg"]
    assert [row.cells[found.headings.index("Work")].value for row in fedavg] == pytest.approx([260, 520, 780, 1040])
    bars = next(block for block in page.blocks if isinstance(block, Figures) and block.legend)
    assert bars.legend == ("hand-out", "download", "work", "upload", "waiting")
    means = bars.drawings[0].data.set_index("method")
    assert means.loc["fedavg", list(bars.legend)[1:]].sum() == pytest.approx(20 * 78) and means.loc["fedavg", "work"] == 650
    reached = tables_of(page)["Time until a score is reached, with 95% intervals"]
    assert {"At the sites", "In the simulation"} <= set(reached.headings)


def test_messages_are_told_by_kind_and_codec(report: Report) -> None:
    found = tables_of(page_of(report, "travelled"))["Messages by kind and codec"]
    assert len(found.rows) == 2 + 2 + 6 + 1 and set(cells(found, "Written as")) == {"none"}
    handed = [row for row in found.rows if row.cells[found.headings.index("When")].words == "before the rounds"]
    assert [[cell.words.replace("\N{NO-BREAK SPACE}", " ") for cell in row.cells[-3:]] for row in handed] == [["4", "5.60 MB", "–"]]


def test_labels_until_a_score_that_all_reach(budgets: Report) -> None:
    """Local reaches the level with the most labels only; dual_kd, above it with the fewest, needs no more than these."""
    found = tables_of(page_of(budgets, "labels"))["Labels until a score is reached, with 95% intervals"]
    needed = dict(zip(cells(found, "Method"), cells(found, "Labelled scans until then"), strict=True))
    assert needed == {"dual_kd": "4.0", "local": "16.0"}


def test_slices_are_thinned_to_the_bytes_allowed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "fedavg", 0, names=NAMES, num_slices=9)

    def viewers(max_bytes: int) -> list[Viewer]:
        return [b for b in page_of(compose([run], Options(max_picture_bytes=max_bytes)), "slices").blocks if isinstance(b, Viewer)]

    full = viewers(9_000_000)
    size = sum(len(viewer.svg) for viewer in full)
    few = viewers(size // 2)
    assert [len(viewer.places) for viewer in full] == [9] * 4 and 1 < len(few[0].places) < 9
    assert sum(len(viewer.svg) for viewer in few) <= size // 2
    assert all(viewer.places[viewer.start] == full[at].places[0] for at, viewer in enumerate(few))  # the fullest is kept


def test_markdown_says_what_the_page_says(report: Report) -> None:
    told = render_markdown(report)
    assert [line[3:] for line in told.splitlines() if line.startswith("## ")][:-1] == [page.title for page in report.pages]
    assert "| Method | DSC, mean over sites |" in told and "**Yes: dual\\_kd gains" in told
    metrics = next(block for block in page_of(report, "sites").blocks if isinstance(block, Choice))
    assert all(f"### {name}" in told for name in metrics.sets)


def test_what_is_never_reached_is_said_so() -> None:
    cell = Column("Bytes", "c", "size").cell({"c": math.inf, "c_low": 1e6, "c_high": math.inf})
    assert (cell.words, cell.detail.replace("\N{NO-BREAK SPACE}", " ")) == ("never", "1.00 MB to never")


def _scribble(run: Path) -> None:
    (run / "scenario.yaml").write_text("clients: many\nrepository: [1]\n")


def _other_columns(run: Path) -> None:
    pq.write_table(pa.table({"run_id": [1.5], "dsc": ["high"]}), run / "tables/cases/all.parquet")


def _no_tables(run: Path) -> None:
    (run / "tables").rename(run / "elsewhere")


def _only_first_evaluation(run: Path) -> None:
    part = run / "tables/cases/all.parquet"
    content = pq.read_table(part)
    pq.write_table(content.filter(pa.compute.equal(content["round"], -1)), part)


def _file_for_a_folder(run: Path) -> None:
    (run / "tables/cases/all.parquet").unlink()
    (run / "tables/cases").rmdir()
    (run / "tables/cases").write_text("")


def _half_a_scenario(run: Path) -> None:
    words = (run / "scenario.yaml").read_bytes()
    (run / "scenario.yaml").write_bytes(words[: len(words) // 2])


def _hardly_a_scenario(run: Path) -> None:
    (run / "scenario.yaml").write_text("method: {name: dual_kd}\n")


def _no_description(run: Path) -> None:
    words = yaml.safe_load((run / "scenario.yaml").read_text())
    (run / "scenario.yaml").write_text(yaml.safe_dump({name: value for name, value in words.items() if name != "description"}))


@pytest.mark.parametrize(
    "break_",
    [
        _scribble, _other_columns, _no_tables, _only_first_evaluation, _file_for_a_folder, _half_a_scenario, _hardly_a_scenario,
        _no_description,
    ],
)  # fmt: skip
def test_a_broken_run_gives_a_report_or_a_sentence(tmp_path: Path, break_: Callable[[Path], None]) -> None:
    run = write_run(tmp_path / "broken", "dual_kd", 0, names=NAMES, skip=["previews"])
    break_(run)
    try:
        made = compose([run], Options())
        assert made.pages and render_html(made) and render_markdown(made)
        assert not [one.needs for one in made.absent if "fault to report" in one.needs]
    except RaykdError as error:
        assert break_ is _scribble or break_ is _half_a_scenario
        assert "no run could be read" in str(error) and str(run) in str(error)


@pytest.mark.parametrize(
    "file",
    [
        *("manifest.json", "scenario.yaml", "cases", "clients", "leaks"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(TABLES.keys() - {"cases", "clients", "leaks"})),
    ],
)
def test_a_file_that_was_cut_is_named(tmp_path: Path, file: str) -> None:
    run = write_run(tmp_path / "cut", "dual_kd", 0, names=NAMES)
    path = run / "tables" / file / "all.parquet" if file in TABLES else run / file
    content = path.read_bytes() if path.exists() else b"PAR1 and no more"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content[: len(content) // 2] if file in TABLES else b"{")
    if file not in TABLES:
        with pytest.raises(RaykdError, match=f"no run could be read.*{file}: the file is damaged"):
            compose([run], Options())
        return
    made = compose([run], Options())
    assert f"Taken to be empty, because it cannot be read: {path}: the file is damaged" in render_markdown(made).replace("\\", "")
    assert "Taken to be empty" in render_html(made) and made.pages
    assert not [one.needs for one in made.absent if "fault to report" in one.needs]


def test_wrong_uses_end_in_a_sentence(study_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = study_dir / "fedavg-seed0"
    with pytest.raises(RaykdError, match="there is no report format 'pfd'; did you mean 'pdf'"):
        build_report([run], tmp_path / "r", "pfd")
    monkeypatch.setattr("raykd.report.pdf.find_browser", lambda: "")
    with pytest.raises(RaykdError, match="apt-get install chromium"):
        build_report([run], tmp_path / "r.pdf", "pdf")
    assert not (tmp_path / "r.pdf").exists()
    done = CliRunner().invoke(app, ["report", str(run), "--format", "md", "--out", str(tmp_path / "r.md")])
    assert (done.exit_code, done.stdout.strip()) == (0, str(tmp_path / "r.md"))


@pytest.mark.slow
def test_sixty_runs_take_megabytes(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", seeds=range(5), budgets=(1, 2, 4), num_slices=12)
    file = build_report([study], tmp_path / "r.html")
    assert file.stat().st_size < 15e6 and "60 runs" in file.read_text(encoding="utf-8")


def test_false_positives_are_listed_by_method_and_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first site's references of the third class are empty; a millilitre and a half is predicted in each."""
    drawn = synthetic_runs.case_rows

    def with_empty(*arguments: Any) -> Iterator[dict[str, Any]]:
        lost = {"dsc": None, "nsd": None, "hd95_mm": None, "assd_mm": None, "is_ref_empty": True, "volume_pred_mm3": 1500.0}
        for row in drawn(*arguments):
            yield row | (lost if (row["client_id"], row["class_index"]) == (0, 3) else {})

    monkeypatch.setattr(synthetic_runs, "case_rows", with_empty)
    study = write_study(tmp_path / "s", methods=["local", "fedavg"], seeds=[0])
    page = page_of(compose([study], Options()), "failures")
    (found,) = (table for caption, table in tables_of(page).items() if caption.startswith("False positives"))
    assert cells(found, "Method") == ["fedavg", "local"] and cells(found, "Site") == [NAMES[0]] * 2
    assert cells(found, "Cases with an empty reference") == ["6"] * 2
    assert cells(found, "Cases with a predicted voxel") == ["100%"] * 2
    assert cells(found, "Mean false-positive volume, mL") == ["1.50"] * 2
    assert "in no mean of DSC" in words_of(page)


def test_what_thick_slices_leave_of_the_reference_is_told_where_a_source_is_finer(budgets: Report) -> None:
    page = page_of(budgets, "sites")
    found = tables_of(page)["The site's reference and its source's"]
    assert set(cells(found, "Site")) == {"rural"} and set(cells(found, "Share")) == {"0.74"}
    scores = zip(cells(found, "DSC at the site"), cells(found, "DSC on the source's grid"), strict=True)
    assert all(float(own) - float(native) == pytest.approx(0.1, abs=0.002) for own, native in scores)
    assert "at rural has 0.74 of the volume that the source's has" in words_of(page)
