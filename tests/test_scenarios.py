"""The gallery: every scenario and study that ships resolves, says what it asks, is listed, and the small ones run."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

import raykd
from raykd.commands.options import plan_scenario, plan_study
from raykd.launch import check_plans
from raykd.scenario.errors import DataError, ScenarioError
from raykd.scenario.load import load_scenario
from raykd.scenario.registry import METHODS
from raykd.scenario.study import is_study, load_study

FOLDER = Path(__file__).parent.parent / "scenarios"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if not path.name.startswith("_"))
GALLERY = [path for path in FILES if path.parent.name == "gallery"]
STUDIES = [path for path in FILES if path.parent.name == "studies"]
LARGE = ("every-method-large", "one-network-large")
QUICK = (
    "few-and-many",
    "pool-by-column",
)
every_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(FOLDER)) for path in FILES])


def shrunk(path: Path, out: Path, *overrides: str) -> raykd.Run:
    """The run of a scenario that trains next to nothing: two rounds, one step each."""
    loaded = load_scenario(path)
    adapts = ["method.adapt_steps=1"] if loaded.scenario.method.name == "dual_kd" else []
    steps = [f"clients[{at}].training.num_local_steps=1" for at, group in enumerate(loaded.scenario.clients) if group.training]
    tiny = ["repository.teacher.num_steps=2", "training.num_local_steps=1", "federation.rounds=2"]
    is_in_step = loaded.scenario.federation.schedule.name != "buffered"
    tiny += ["federation.personal_rounds=1"] if is_in_step else []
    tiny += ["evaluation.every=2", "evaluation.surface_metrics=never", "evaluation.previews=0"]
    return raykd.run(path, out=out, overrides=[*tiny, *adapts, *steps, *overrides], backend="in-process")


def head_of(path: Path) -> list[str]:
    return list(itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()))


def test_there_are_enough_scenarios_and_studies() -> None:
    assert FOLDER / "smoke.yaml" in FILES
    assert len(GALLERY) >= 15 and not any(map(is_study, GALLERY))
    assert len(STUDIES) >= 6 and all(map(is_study, STUDIES))


@pytest.mark.parametrize("path", [*GALLERY, *STUDIES], ids=lambda path: path.stem)
def test_head_tells_the_question_and_what_to_look_at(path: Path) -> None:
    begun = [line.partition(":")[0] for line in head_of(path)]
    assert "# Question" in begun and "# Look at" in begun


@pytest.mark.parametrize("path", [*GALLERY, *STUDIES], ids=lambda path: path.stem)
def test_name_is_the_files(path: Path) -> None:
    name = load_study(path).name if is_study(path) else load_scenario(path).scenario.name
    assert name == path.stem


@every_file
def test_every_file_named_at_its_head_is_there(path: Path) -> None:
    named = re.findall(r"[\w/-]+\.(?:yaml|py)\b", " ".join(head_of(path)[1:]))
    assert [name for name in named if not any((folder / name).is_file() for folder in (path.parent, FOLDER, FOLDER.parent))] == []


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_options_that_a_head_advises_are_accepted(path: Path, tmp_path: Path) -> None:
    """Alone or together; only averaging of unlike networks is advised in order to be refused."""
    head = " ".join(line.removeprefix("#").strip() for line in head_of(path))
    advised = [quoted or plain.rstrip(",;:.") for quoted, plain in re.findall(r"--set (?:'([^']+)'|(\S+))", head)]
    together = [option for option in advised if option.startswith(("training.", "federation."))]
    for options in [together, *([option] for option in advised if option not in together)]:
        plan = plan_scenario(path, options, tmp_path)
        if path.stem == "unlike-networks" and options == ["method={name: fedavg}"]:
            with pytest.raises(ScenarioError, match="averages parameters"):
                check_plans([plan])
        else:
            check_plans([plan])


def test_readme_lists_every_scenario_and_study_once() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[[^]]+\]\(([^)]+\.yaml)\)", readme, flags=re.MULTILINE)
    methods = [path for path in FILES if path.parent.name == "methods"]
    assert sorted(listed) == sorted(str(path.relative_to(FOLDER)) for path in FILES if path not in methods)


@pytest.mark.parametrize("size", ["small", "full"])
def test_method_zoo_runs_every_method_that_its_optimiser_allows(size: str) -> None:
    study = load_study(FOLDER / "studies" / f"method_zoo-{size}.yaml")
    optimiser = study.cells[0].loaded.scenario.training.optimiser
    runnable = {name for name in METHODS.names() if optimiser in METHODS.get(name).optimisers}
    assert {cell.loaded.scenario.method.name for cell in study.cells} == runnable


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.slow)
        for path in GALLERY
        if path.stem not in LARGE
    ],
)
def test_small_scenario_runs_and_judges_every_site(path: Path, tmp_path: Path) -> None:
    run = shrunk(path, tmp_path / "run")
    tested = run.cases[(run.cases["split"] == "test") & (run.cases["round"] == 1)]
    assert run.manifest["status"] == "done"
    assert set(tested["client_id"]) == set(run.clients["client_id"])
    assert set(tested["class_name"]) == set(load_scenario(path).scenario.classes)
    assert np.isfinite(run.training["loss_total"].astype(float)).all()


@pytest.mark.parametrize(
    ("override", "key"),
    [("federation.rounds=4", "federation.personal_rounds"), ("repository.classes=[patella]", "repository.classes")],
)
def test_contradicting_option_is_told_by_its_key(override: str, key: str) -> None:
    """Four rounds are all personal in small-knees, and patella is none of its classes."""
    with pytest.raises(ScenarioError) as refused:
        load_scenario(FOLDER / "gallery" / "small-knees.yaml", [override])
    assert [problem.path for problem in refused.value.problems] == [key]


@pytest.mark.slow
def test_sites_alone_train_unlike_networks(tmp_path: Path) -> None:
    """`local` starts each site from its own network; a warm start, which is one network's, is refused."""
    path = FOLDER / "gallery" / "unlike-networks.yaml"
    run = shrunk(path, tmp_path / "run", "method={name: local}", "federation.personal_rounds=0")
    tested = run.cases[(run.cases["split"] == "test") & (run.cases["round"] == 1)]
    assert run.clients["num_params"].nunique() == 3
    assert set(zip(tested["client_id"], tested["model"], strict=True)) == {(0, "personal"), (1, "personal"), (2, "personal")}
    with pytest.raises(ScenarioError, match="one student to every site"):
        check_plans([plan_scenario(path, ["method={name: local, is_warm: true}"], tmp_path)])


@pytest.mark.slow
def test_come_and_go_writes_down_who_came_and_went(tmp_path: Path) -> None:
    rounds = ["federation.rounds=6", "federation.personal_rounds=0", "evaluation.every=6"]
    run = shrunk(FOLDER / "gallery" / "come-and-go.yaml", tmp_path / "run", *rounds)
    told = run.events[run.events["kind"].isin(["joined", "left"])]
    ids = dict(zip(run.clients["group"], run.clients["client_id"], strict=True))
    assert sorted(zip(told["kind"], told["client_id"], told["round"], strict=True)) == [
        ("joined", ids["newcomer"], 5),
        ("left", ids["project"], 5),
    ]
    assert ids["outsider"] not in set(run.training["client_id"])


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_nnunet(folder: Path, names: list[str], volume: bytes) -> None:
    labels = {"background": 0, "femoral_cartilage": 1, "tibial_cartilage": 2, "meniscus": 3}
    described = {"channel_names": {"0": "T2"}, "labels": labels, "numTraining": len(names), "file_ending": ".nii.gz"}
    write(folder / "dataset.json", json.dumps(described).encode())
    for name in names:
        write(folder / "imagesTr" / f"{name}_0000.nii.gz", volume)
        write(folder / "labelsTr" / f"{name}.nii.gz", volume)


def write_bids(folder: Path, entity: str, sites: list[str], volume: bytes) -> None:
    rows = [f"sub-{number:02d}\t{site}" for number, site in enumerate(sites)]
    write(folder / "participants.tsv", "\n".join(["participant_id\tsite", *rows, ""]).encode())
    tsv = "index\tname\n1\thippocampus\n"
    write(folder / "derivatives" / "manual" / f"{entity}dseg.tsv", tsv.encode())
    for number in range(len(sites)):
        subject = f"sub-{number:02d}"
        write(folder / subject / "anat" / f"{subject}_T1w.nii.gz", volume)
        write(folder / "derivatives" / "manual" / subject / "anat" / f"{subject}_{entity}dseg.nii.gz", volume)


def fill_nnunet(data: Path, num_patients: int, volume: bytes) -> None:
    write_nnunet(data / "Dataset001_Reference", [f"knee_{number:02d}" for number in range(12)], volume)
    write_nnunet(data / "Dataset002_Few", [f"few_{number:02d}" for number in range(10 + 20)], volume)
    visits = [f"p{number:02d}_{visit}" for number in range(num_patients) for visit in ("first", "second")]
    write_nnunet(data / "Dataset003_Other", visits, volume)


def fill_bids(data: Path, num_patients: int, volume: bytes) -> None:
    write_bids(data / "public", "", ["elsewhere"] * 12, volume)
    write_bids(data / "study", "desc-expert_", ["basel"] * num_patients + ["GVA"] * 15 + ["zurich"] * 9, volume)


def fill_by_scanner(data: Path, num_patients: int, volume: bytes) -> None:
    for number in range(12):
        for kind in ("image", "label"):
            write(data / "reference" / f"{number:02d}_{kind}.nii.gz", volume)
    scanners = ["Prisma"] * num_patients + ["Aera"] * 15 + ["Freemax"] * 12 + ["Vida"] * 9
    rows = [f"scans/{number}.nii.gz,scans/{number}_seg.nii.gz,p{number},{scanner}" for number, scanner in enumerate(scanners)]
    write(data / "knees.csv", "\n".join(["image,label,patient,scanner", *rows, ""]).encode())
    for number in range(len(scanners)):
        write(data / "scans" / f"{number}.nii.gz", volume)
        write(data / "scans" / f"{number}_seg.nii.gz", volume)


@pytest.mark.parametrize(
    ("name", "fill", "num_needed", "short"),
    [
        ("nnunet", fill_nnunet, 10, "other-names"),
        ("bids", fill_bids, 10 + 5, "basel"),
        ("by-scanner", fill_by_scanner, 10 + 5, "prisma"),
    ],
)
def test_real_template_fits_data_laid_out_as_its_head_says(
    name: str, fill: Callable[[Path, int, bytes], None], num_needed: int, short: str, tmp_path: Path
) -> None:
    """With just enough patients at every site it resolves; with one less at one site, that site is told."""
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), dtype=np.int16), np.eye(4)), tmp_path / "volume.nii.gz")
    volume = (tmp_path / "volume.nii.gz").read_bytes()
    for folder, num_patients in ((tmp_path / "enough", num_needed), (tmp_path / "less", num_needed - 1)):
        fill(folder / "data", num_patients, volume)
        shutil.copy(FOLDER / "real" / f"{name}.yaml", folder)
    check_plans([plan_scenario(tmp_path / "enough" / f"{name}.yaml", [], tmp_path)])
    with pytest.raises((DataError, ScenarioError), match=short):
        check_plans([plan_scenario(tmp_path / "less" / f"{name}.yaml", [], tmp_path)])


@every_file
def test_resolves_and_contradicts_nothing(path: Path, tmp_path: Path) -> None:
    plans = plan_study(path, [], tmp_path)[1] if is_study(path) else [plan_scenario(path, [], tmp_path)]
    assert plans
    try:
        check_plans(plans)
    except DataError as error:
        sources = {block.source.name for plan in plans for block in (plan.scenario.repository, *plan.scenario.clients)}
        if sources == {"phantom"}:
            raise
        pytest.skip(f"its data are not here: {error}")


@every_file
def test_names_the_schema_for_editors(path: Path) -> None:
    """In the comment at its head, by a path that leads to the folder of the gallery."""
    (named,) = [line.split("$schema=")[1] for line in head_of(path) if line.startswith("# yaml-language-server: $schema=")]
    assert (path.parent / named).resolve().parent == FOLDER
    assert Path(named).name == ("study.schema.json" if is_study(path) else "scenario.schema.json")
