import base64
import hashlib
import io
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
import synthetic_runs
import yaml
from synthetic_runs import CLASSES, CLIENTS, METHODS, preview_rows, write_run, write_study

from raykd.report import build_report, latex
from raykd.report.figures import shorten
from raykd.report.html import file_name
from raykd.report.markdown import escape
from raykd.results.writer import RunWriter
from raykd.scenario.errors import RaykdError

NAMES = [name for name, *_ in CLIENTS]
VOID = {"meta", "input", "br", "hr", "link", "img"}


class Page(HTMLParser):
    """What a browser would find: text, attributes by tag, and whether every element is closed in order."""

    def __init__(self, path: Path | str):
        super().__init__()
        self.source = path if isinstance(path, str) else path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag and attributes.items() <= found.items()]


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_method_client_and_class_is_told(page: Page) -> None:
    for word in (*METHODS, *NAMES, *(name.replace("_", " ") for name in CLASSES)):
        assert word in page.text
    assert page.open == []


def test_the_answer_names_the_best_method_its_worst_site_and_both_yardsticks(page: Page) -> None:
    against = "of Dice against sites alone on their own labels"
    assert re.search(
        rf"Yes : dual_kd gains 0\.\d\d \(0\.\d\d to 0\.\d\d\) {against} \(24 scans of 3 trainings, p = 0\.0", page.text
    )
    lead = r"dual_kd \(teacher from the repository\) has the highest mean of 4 methods: a mean Dice score of 0\.\d\d \(0\.\d\d to"
    assert re.search(lead, page.text)
    assert "Is it worth it?" in page.text and "For whom?" in page.text and "At what cost?" in page.text
    assert re.search(r"Beside local, 4 of 4 sites are better off, 0 worse, 0 open, p-values adjusted over the sites\. ", page.text)
    assert re.search(r"judged on 24 test scans", page.text)
    assert re.search(r"Its weakest site is rural with 0\.\d\d", page.text)
    assert re.search(r"Against local \(sites alone on their own labels\) it gains 0\.\d\d", page.text)
    assert re.search(r"Against fedavg \(plain federated averaging\) it gains 0\.\d\d", page.text)
    assert "phantoms" in page.text


def test_bytes_are_those_of_the_transfers(page: Page) -> None:
    up = 20 * (1_404_816 + 500_000 + 200_000)
    down = up + 5_600_000
    assert f"In 20 rounds a site received {down / 1e6:.1f} MB and sent {up / 1e6:.1f} MB" in page.text
    assert f"all sites together moved {4 * (up + down) / 1e6:.0f} MB" in page.text


def test_seconds_are_those_of_the_rounds(page: Page) -> None:
    assert "Simulating its rounds took 6 min 50 s" in page.text  # 410 s
    assert "it would take about 41 min" in page.text


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    for _, attributes in page.tags:
        for name in ("src", "href", "action", "srcset"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:image/png;base64,", "data:text/csv;charset=utf-8,")) or value == ""
    assert "url(" not in page.source and "@import" not in page.source
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert (policy["content"] or "").startswith("default-src 'none'; img-src data:")


def test_the_policy_admits_the_script_and_no_other(page: Page) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.source
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]


def test_headings_sort_the_comparison_by_numbers(page: Page) -> None:
    (region,) = page.all("div", **{"aria-label": "Methods, their quality and their cost"})
    assert region["tabindex"] == "0"
    assert len(page.all("table", **{"class": "sortable"})) > 10
    assert len([cell for cell in page.all("td") if "data-value" in cell]) > 4 * 8


def test_slices_show_each_image_once_and_an_outline_for_every_method(page: Page) -> None:
    # A source and two slices of each site and an image of the repository. What each site sees refers twice to its image, for the
    # reference and for the prediction; the viewer once to the slice that is there already.
    assert len(page.all("image")) == 3 * len(CLIENTS) + 1
    assert len(page.all("use")) == 2 * (len(CLIENTS) + 1) + len(CLIENTS)
    ids = {attributes["id"] for attributes in page.all("image")}
    assert len(ids) == len(page.all("image"))
    assert {(attributes["href"] or "")[1:] for attributes in page.all("use")} <= ids
    shown = [a for a in page.all("path") if (a.get("class") or "").startswith("outline") and a.get("d") != "M0 3h28"]
    # Each of three structures apart: in what each site sees, the reference and a prediction; in the viewers these of all methods,
    # and the teacher's.
    assert len(shown) == 3 * (2 * (len(CLIENTS) + 1) + 2 * len(CLIENTS) * (2 + len(METHODS)))
    students = [a["data-label"] for a in shown if "data-label" in a]
    assert sorted(set(students)) == sorted(METHODS) and len(students) == 3 * 2 * len(CLIENTS) * len(METHODS)
    styles = {(a["data-structure"], (a["class"] or "").split()[-1]) for a in shown}
    assert styles == {("femoral cartilage", "l0"), ("tibial cartilage", "l1"), ("patellar cartilage", "l2")}
    areas = [a for a in page.all("path") if (a.get("class") or "").startswith("area") and "data-structure" in a]
    assert len(areas) == 3 * (len(CLIENTS) + 1 + 2 * len(CLIENTS)), "references are filled"
    for layer in ("reference", "student", "teacher"):
        assert page.all("input", type="checkbox", id=f"show-{layer}")


def test_a_viewer_starts_at_the_slice_with_most_of_the_reference(page: Page) -> None:
    sliders = page.all("input", type="range")
    assert len(sliders) == len(CLIENTS)
    assert all((slider["min"], slider["max"], slider["value"]) == ("0", "1", "0") for slider in sliders)
    assert [slider["data-places"] for slider in sliders][3] == "40, 60 mm;41, 62 mm"  # slices of 1.5 mm
    groups = [a for a in page.all("g") if (a.get("class") or "").startswith("slice")]
    assert [a["class"] for a in groups] == ["slice", "slice off"] * len(CLIENTS)


def test_each_site_s_case_stands_beside_its_source_in_the_same_extent(page: Page) -> None:
    views = page.source[page.source.index('<section id="views"') : page.source.index('<section id="methods"')]
    boxes = re.findall(r'<svg viewBox="([^"]+)"', views)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", views)
    assert len(boxes) == len(captions) == 3 + 4 * len(CLIENTS)
    assert captions[:3] == ["As the repository has it, 0.75 × 0.5 × 0.5 mm", "Reference", "Prediction of the teacher"]
    rural = captions[-4:]
    assert rural[:3] == ["As its source has it, 0.75 × 0.5 × 0.5 mm", "As the site has it, 4.5 × 1.5 × 1.5 mm", "Reference"]
    assert re.fullmatch(r"Prediction of dual_kd, DSC 0\.\d\d", rural[3])
    # 110 by 100 mm, to the nearest whole voxel of the source (0.5 by 0.75 mm) and of the site (1.5 by 4.5 mm).
    assert boxes[-4] == "0 0 99.75 110" and set(boxes[-3:]) == {"0 0 99 109.5"}


def test_what_is_particular_to_a_site_is_told_beside_its_case(page: Page) -> None:
    start = page.text.rindex("What each site sees")
    views = page.text[start : page.text.index("The methods compared", start)]
    community, rural = views[views.index("community-0") : views.index("community-1")], views[views.index("rural") :]
    assert "Labels 1 of 8 training scans; 40% of the slices of each;" in rural and "boundaries off by 1 mm" in rural
    assert "Slices 0.5 mm between two slices are covered by neither" in rural
    assert "Takes part rounds 1 to 12" in rural
    assert "Drawn for it spacing_mm[0] 4.51, scanner.noise 0.0812 Coronal slice" in rural
    assert "Labels 2 of 8 training scans; femoral cartilage" in community
    assert not any(word in community for word in ("covered", "Takes part", "Drawn"))
    assert "repository Source phantom, knee Coronal slice of repository-3" in views


def test_runs_without_the_source_s_slices_show_what_they_have(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "fedavg", 0, names=NAMES, skip=["previews"])
    common = {"run_id": "fedavg-0", "scenario": "two-shot-knees", "method": "fedavg", "seed": 0}
    kept = [
        {name: value for name, value in row.items() if name != "slice_mm"}
        for row in preview_rows("fedavg", "global", 2.0)
        if row["layer"] != "source" and row["client_id"] == 3
    ]
    RunWriter(run, common).write("previews", kept, "all")
    page = Page(build_report([run], tmp_path / "r.html"))
    assert "As the site has it, 4.5 × 1.5 mm Reference Prediction of fedavg" in page.text
    assert "As its source has it" not in page.text and "nan" not in page.text


def test_castings_have_no_left_and_right(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "fedavg", 0, names=NAMES)
    path = run / "scenario.yaml"
    path.write_text(path.read_text().replace("anatomy: knee", "anatomy: casting_ct"))
    part = path.read_text().replace("    name: phantom\n", "    name: phantom\n    anatomy: casting_ct\n")
    path.write_text(part)
    page = Page(build_report([run], tmp_path / "r.html"))
    assert "Slice across J of case-0" in page.text and "rural: slices across J of case-0" in page.text
    assert not any(word in page.text for word in ("oronal", "radiological", "R × A × S", "patients"))


def test_figures_speak_to_screen_readers(page: Page) -> None:
    figures = [a for a in page.all("svg") if "aria-hidden" not in a]
    assert len(figures) > 20 and all(a["role"] == "img" and a["aria-label"] for a in figures)


def test_the_same_runs_give_the_same_page(study_dir: Path, page: Page, tmp_path: Path) -> None:
    assert build_report([study_dir], tmp_path) == tmp_path / "report.html"
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page.source


def test_one_run_is_reported_alone(study_dir: Path, tmp_path: Path) -> None:
    page = Page(build_report([study_dir / "fedavg-seed0"], tmp_path / "one.html"))
    assert "fedavg reaches a mean Dice score" in page.text
    assert "No other method was run" in page.text
    assert "One training: 95% intervals are over its test scans alone" in page.text


def test_names_are_escaped_everywhere(make_study: Callable[..., Path], tmp_path: Path) -> None:
    evil = """</style></script><script>alert(1)</script>"'<img src=x onerror=alert(2)>"""
    study = make_study(methods=["fedavg", "dual_kd"], seeds=[0], names=[*NAMES[:3], evil])
    for path in study.glob("*/scenario.yaml"):
        settings = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**settings, "name": evil, "description": evil}))
    page = Page(build_report([study], tmp_path / "r.html"))
    assert evil not in page.source and "<img" not in page.source
    assert page.text.count(evil) > 5 and page.open == []
    assert page.source.count("<script") == 1
    told = build_report([study], tmp_path / "r.md", "md").read_text(encoding="utf-8")
    assert "<script" not in told.replace("\\<", "") and "alert" in told


SCRIPTS = ["大阪市立総合医療センター", "مستشفى الملك فهد", "🏥 <b>&\"'", "left $_% kidney"]


@pytest.fixture
def any_script(make_study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose sites and classes have names in several scripts."""
    monkeypatch.setattr(synthetic_runs, "CLASSES", ("左腎臓", "الكبد", "left kidney, <upper> pole"))
    return make_study(methods=["fedavg", "dual_kd"], seeds=[0], names=SCRIPTS)


def test_names_of_any_script_are_shown_as_they_are(any_script: Path, tmp_path: Path) -> None:
    page = Page(build_report(any_script, tmp_path / "r.html"))
    assert page.open == [] and "<b>&" not in page.source and "<upper>" not in page.source
    for name in (*SCRIPTS, "左腎臓", "الكبد", "left kidney, <upper> pole"):
        assert page.text.count(name) > 2, name
    links = [a for a in page.all("a") if (a.get("href") or "").startswith("data:text/csv")]
    names = [a["download"] or "" for a in links]
    assert len(names) > 10 and all(re.fullmatch(r"[a-z0-9-]+\.csv", name) for name in names)
    tables = [unquote((a["href"] or "").partition(",")[2]) for a in links]
    assert all(table.startswith("\ufeff") for table in tables)  # spreadsheets take it for UTF-8
    frames = [pd.read_csv(io.StringIO(table)) for table in tables]
    assert {name for frame in frames if "client_name" in frame for name in frame["client_name"]} <= set(SCRIPTS)
    told = build_report(any_script, tmp_path / "r.md", "md").read_text(encoding="utf-8")
    assert all(escape(name) in told for name in SCRIPTS)


def test_figures_and_tables_leave_the_terminal_s_and_the_page_s_room_to_wide_letters() -> None:
    assert shorten("大" * 30, 20) == "大" * 4 + "…" + "大" * 5 and shorten("大" * 10, 20) == "大" * 10
    assert shorten("x" * 21, 20) == "x" * 9 + "…" + "x" * 10 and shorten("e\u0301" * 20, 20) == "e\u0301" * 20
    assert shorten("e\u0301" * 21, 20) == "e\u0301" * 9 + "…" + "e\u0301" * 10  # no accent on the ellipsis
    assert file_name("where", "大阪") != file_name("where", "京都") and file_name("Where, and who") == "where-and-who.csv"


def test_words_are_escaped_for_latex() -> None:
    assert latex.escape("50 % of A&B_1 {$x^2~#\\<>}") == (
        r"50 \% of A\&B\_1 \{\$x\textasciicircum{}2\textasciitilde{}\#\textbackslash{}\textless{}\textgreater{}\}"
    )
    assert latex.escape("大阪 مستشفى") == "大阪 مستشفى"


@pytest.mark.parametrize(
    ("skipped", "sentence"),
    [
        ("previews", "What it looks like needs slices of test cases; set evaluation.previews to 1 or more."),
        ("transfers", "What travelled needs a recorded transfer"),
        ("calibration", "Whether a model is as sure as it is right needs probabilities counted beside classes"),
        ("events", "Nothing out of the ordinary was recorded."),
        ("clients", "The table of clients is missing, so sites go by their numbers."),
        ("cases", "No test case has been evaluated yet"),
        ("rounds", "On the repository"),
        ("training", "Simulating the rounds"),
        ("teachers", "Simulating the rounds"),
    ],
)
def test_a_missing_table_becomes_a_sentence(tmp_path: Path, skipped: str, sentence: str) -> None:
    run = write_run(tmp_path / "run", "dual_kd", 0, names=NAMES, skip=[skipped])
    page = Page(build_report([run], tmp_path / "r.html"))
    assert sentence.lower() in page.text.lower()
    assert page.open == [] and "nan" not in page.text.split() and "a fault to report" not in page.text


def test_a_run_that_hardly_started_is_said_to_be_so(tmp_path: Path) -> None:
    everything = ["clients", "cases", "rounds", "training", "transfers", "events", "previews", "teachers"]
    run = write_run(tmp_path / "run", "dual_kd", 0, names=NAMES, skip=everything, status="running")
    page = Page(build_report([run], tmp_path / "r.html"))
    assert "No run is finished: run (running)." in page.text
    assert "there is no answer" in page.text
    assert "How they learned needs at least two evaluated rounds" in page.text
    assert "How long it takes needs a recorded time" in page.text


def test_unfinished_and_broken_runs_are_left_out_and_named(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", methods=["local", "dual_kd"], seeds=[0])
    write_run(study / "fedavg-seed0", "fedavg", 0, names=NAMES, status="interrupted")
    broken = write_run(study / "fedprox-seed0", "fedprox", 0, names=NAMES)
    (broken / "tables/cases/all.parquet").write_bytes(b"PAR1")
    shutil.copytree(study / "local-seed0", study / "local-seed0-copy")
    page = Page(build_report([study], tmp_path / "r.html"))
    assert "has the highest mean of 2 methods" in page.text
    assert "not finished: fedavg-seed0 (interrupted)" in page.text
    assert "cannot be read" in page.text and "all.parquet: the file is damaged" in page.text
    assert "one training, of which scores and costs are means: local-0; local-0 (local-seed0-copy)." in page.text


def test_seeds_that_differ_between_methods_are_told(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", methods=["local"], seeds=[0])
    write_study(study, methods=["dual_kd"], seeds=[0, 1])
    assert "Methods were run with different seeds" in Page(build_report([study], tmp_path / "r.html")).text


def test_places_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RaykdError, match="no such directory"):
        build_report([tmp_path / "nowhere"], tmp_path / "r.html")
    run = write_run(tmp_path / "run", "local", 0, names=NAMES)
    (tmp_path / "file").touch()
    with pytest.raises(RaykdError, match="cannot be written"):
        build_report([run], tmp_path / "file" / "r.html")
    (run / "manifest.json").write_text("{")
    with pytest.raises(RaykdError, match="no run could be read"):
        build_report([run], tmp_path / "r.html")
