"""One person at two sites, or on both sides of a split, is found: by file, by patient, by content."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from layout_files import source as file_source
from numpy.typing import NDArray
from typer.testing import CliRunner

from raykd.cli import app
from raykd.data.checks import inspect_cases
from raykd.data.federation import list_cases
from raykd.data.identity import shared_cases, unnamed_patients
from raykd.data.patient_notes import patient_notes as notes
from raykd.data.sources._base import CaseKey, Source
from raykd.data.sources._persons import Person
from raykd.data.sources.folder import FolderSource
from raykd.scenario.errors import DataError
from raykd.scenario.load import dump_scenario, scenario_from_dict
from raykd.scenario.schema import Scenario

SHAPE = (5, 6, 7)
AFFINE = np.diag([2.0, 1.0, 1.0, 1.0])
Write = Callable[..., NDArray[np.float32]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a case `FOLDER/NAME_im.nii.gz` with its label and gives its voxels: drawn from `content`, or those given."""

    def write(name: str, content: int | NDArray[np.float32]) -> NDArray[np.float32]:
        rng = np.random.default_rng(content if isinstance(content, int) else 0)
        image = rng.normal(100, 10, SHAPE).astype(np.float32) if isinstance(content, int) else content
        path = tmp_path / f"{name}_im.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(image, AFFINE), path)
        nibabel.save(nibabel.Nifti1Image(rng.integers(0, 2, SHAPE).astype(np.uint8), AFFINE), tmp_path / f"{name}_seg.nii.gz")
        return image

    return write


def folder(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": "folder", "images": f"{name}/*_im.nii.gz", "labels": f"{name}/*_seg.nii.gz", **settings}


def scenario(root: Path, sources: dict[str, dict[str, Any]], repository: dict[str, Any] | None = None, **values: Any) -> Scenario:
    phantom = {"name": "phantom", "num_cases": 2, "spacing_mm": [10.0, 10.0, 10.0], "field_of_view_mm": [100.0, 100.0, 100.0]}
    data = {
        "name": "leaks",
        "classes": ["femoral_cartilage"],
        "repository": {
            "source": repository or phantom,
            "num_validation": 1,
            "teacher": {"network": {"name": "unet", "width": 4}},
        },
        "clients": [
            {"group": name, "source": source, "labels": {"num_shots": 1}, "num_test": 1} for name, source in sources.items()
        ],
        "student": {"network": {"name": "unet", "width": 4}},
        "method": {"name": "fedavg"},
    }
    return scenario_from_dict(data | values, root).scenario


def check_cases(built: Scenario, root: Path) -> None:
    """What `raykd check` does with the cases of a scenario."""
    if problems := inspect_cases(built, root).problems:
        raise DataError("\n".join(problems))


def refusal(check: Callable[[Scenario, Path], None], built: Scenario, root: Path) -> list[str]:
    with pytest.raises(DataError) as refused:
        check(built, root)
    return str(refused.value).splitlines()


def test_sites_with_files_of_their_own_are_fine(tmp_path: Path, write: Write) -> None:
    for index, name in enumerate(("north/1", "north/2", "south/1", "south/2")):
        write(name, index)
    built = scenario(tmp_path, {"north": folder("north"), "south": folder("south")})
    list_cases(built, tmp_path)
    check_cases(built, tmp_path)


def test_two_groups_that_read_one_folder_are_refused_before_a_run_and_sent_to_pools(tmp_path: Path, write: Write) -> None:
    write("all/1", 1)
    write("all/2", 2)
    (line,) = refusal(list_cases, scenario(tmp_path, {"north": folder("all"), "south": folder("all")}), tmp_path)
    assert line.startswith("north and south: owners must have no patient in common, got 1, 2 with both") and "under pools" in line


def test_two_sites_of_one_group_share_its_folder_too(tmp_path: Path, write: Write) -> None:
    write("all/1", 1)
    write("all/2", 2)
    group = {"group": "twin", "count": 2, "source": folder("all"), "labels": {"num_shots": 1}, "num_test": 1}
    (line,) = refusal(list_cases, scenario(tmp_path, {}, clients=[group]), tmp_path)
    assert line.startswith("twin-0 and twin-1: ")


def test_a_client_that_tests_on_the_repository_s_cases_is_refused(tmp_path: Path, write: Write) -> None:
    for index in range(3):
        write(f"all/{index}", index)
    (line,) = refusal(list_cases, scenario(tmp_path, {"north": folder("all")}, repository=folder("all")), tmp_path)
    assert line.startswith("north and repository: ") and "got 0, 1, 2 with both" in line


def test_one_file_under_two_paths_is_one_file(tmp_path: Path, write: Write) -> None:
    write("north/1", 1)
    write("north/2", 2)
    (tmp_path / "south").symlink_to(tmp_path / "north", target_is_directory=True)
    built = scenario(tmp_path, {"north": folder("north"), "south": folder("south")})
    assert refusal(list_cases, built, tmp_path)[0].startswith("north and south: ")


def test_one_patient_s_visits_at_two_sites_are_refused(tmp_path: Path, write: Write) -> None:
    for index, name in enumerate(("a_v1", "b_v1", "a_v2", "c_v2")):
        write(f"all/{name}", index)
    visits = {
        visit: {"name": "folder", "images": f"all/*_{visit}_im.nii.gz", "labels": f"all/*_{visit}_seg.nii.gz"}
        for visit in ("v1", "v2")
    }
    list_cases(scenario(tmp_path, visits), tmp_path)  # nothing says that `a` is a person and not a number of the visit
    named = {visit: {**source, "patient_pattern": "^([a-z])_"} for visit, source in visits.items()}
    (line,) = refusal(list_cases, scenario(tmp_path, named), tmp_path)
    assert "v1 and v2" in line and "got a with both" in line


def test_a_pool_of_the_folder_shares_it_without_a_leak(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(5):
        write(f"all/{index}", index)
    share = {"name": "pool", "pool": "all"}
    built = scenario(tmp_path, {"north": share, "south": share}, pools={"all": {"source": folder("all")}})
    list_cases(built, tmp_path)
    read = []
    load = FolderSource.load
    monkeypatch.setattr(FolderSource, "load", lambda self, key: read.append(key.case_id) or load(self, key))  # type: ignore[func-returns-value]
    check_cases(built, tmp_path)
    assert sorted(read) == ["0", "1", "2", "3", "4"]


def test_a_pool_whose_files_a_client_also_reads_directly_is_a_leak(tmp_path: Path, write: Write) -> None:
    for index in range(5):
        write(f"all/{index}", index)
    sources = {"north": {"name": "pool", "pool": "all"}, "south": folder("all")}
    (line,) = refusal(list_cases, scenario(tmp_path, sources, pools={"all": {"source": folder("all")}}), tmp_path)
    assert line.startswith("north and south: ")


def test_a_renamed_copy_at_another_site_is_found_by_its_content(tmp_path: Path, write: Write) -> None:
    for index, name in enumerate(("north/1", "north/2", "south/8", "south/9")):
        write(name, index)
    shutil.copy(tmp_path / "north/2_im.nii.gz", tmp_path / "south/9_im.nii.gz")
    built = scenario(tmp_path, {"north": folder("north"), "south": folder("south")})
    list_cases(built, tmp_path)
    (line,) = refusal(check_cases, built, tmp_path)
    assert line.startswith("south: case '9': images must differ, got the content of case '2' of north")


def flipped(image: NDArray[np.float32], path: Path) -> None:
    """The same image with its first axis stored the other way round, and said so in the affine."""
    affine = AFFINE.copy()
    affine[0, 0], affine[0, 3] = -2.0, 2.0 * (SHAPE[0] - 1)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(image[::-1]), affine), path)


def as_double(image: NDArray[np.float32], path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(image.astype(np.float64), AFFINE), path)


def re_headed(image: NDArray[np.float32], path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(image, np.diag([3.0, 3.0, 3.0, 1.0])), path)
    label = path.with_name(path.name.replace("_im", "_seg"))
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), np.diag([3.0, 3.0, 3.0, 1.0])), label)


@pytest.mark.parametrize("rewrite", [flipped, as_double, re_headed])
def test_a_copy_packed_anew_is_found_by_its_voxels(rewrite: Any, tmp_path: Path, write: Write) -> None:
    for index, name in enumerate(("north/1", "north/2", "south/8", "south/9")):
        image = write(name, index)
        if name == "north/2":
            copied = image
    rewrite(copied, tmp_path / "south/9_im.nii.gz")
    (line,) = refusal(check_cases, scenario(tmp_path, {"north": folder("north"), "south": folder("south")}), tmp_path)
    assert "south: case '9'" in line and "case '2' of north" in line


def test_a_copy_that_one_site_clips_is_found_by_its_file(tmp_path: Path, write: Write) -> None:
    for index, name in enumerate(("north/1", "north/2", "south/8", "south/9")):
        write(name, index)
    shutil.copy(tmp_path / "north/2_im.nii.gz", tmp_path / "south/9_im.nii.gz")
    sources = {"north": folder("north"), "south": folder("south", clip=[90.0, 110.0])}
    assert len(refusal(check_cases, scenario(tmp_path, sources), tmp_path)) == 1


def test_an_image_that_is_almost_the_same_is_no_copy(tmp_path: Path, write: Write) -> None:
    for index, name in enumerate(("north/1", "north/2", "south/8")):
        write(name, index)
    image = write("south/9", 1).copy()
    image[0, 0, 0] += 1.0
    write("south/9", image)
    check_cases(scenario(tmp_path, {"north": folder("north"), "south": folder("south")}), tmp_path)


def test_a_copy_within_one_site_may_be_tested_and_trained_on_and_is_refused(tmp_path: Path, write: Write) -> None:
    copied = write("north/1", 1)
    write("north/2", 2)
    as_double(copied, tmp_path / "north/2_im.nii.gz")
    (line,) = refusal(check_cases, scenario(tmp_path, {"north": folder("north")}), tmp_path)
    assert line.startswith("north: case '2': images must differ, got the content of case '1' of north")


def test_everything_wrong_at_every_site_is_said_at_once(tmp_path: Path, write: Write) -> None:
    for index, name in enumerate(("north/1", "north/2", "south/8", "south/9")):
        write(name, index)
    for name in ("north/1", "south/8"):
        write(name, np.full(SHAPE, 7, np.float32))
    built = scenario(tmp_path, {"north": folder("north"), "south": folder("south")})
    lines = refusal(check_cases, built, tmp_path)
    assert len(lines) == 2 and "case '1'" in lines[0] and "case '8'" in lines[1]
    (tmp_path / "north/2_seg.nii.gz").unlink()
    (tmp_path / "south/9_seg.nii.gz").unlink()
    lines = refusal(list_cases, built, tmp_path)
    assert [("case '2'" in line, "case '9'" in line) for line in lines] == [(True, False), (False, True)]


def _archive(root: Path) -> dict[str, Any]:
    images = np.random.default_rng(0).normal(size=(6, *SHAPE)).astype(np.float32)
    labels = np.broadcast_to(np.arange(SHAPE[0])[:, None, None] == 1, (6, *SHAPE)).astype(np.uint8)
    np.savez(root / "stack.npz", images=images, labels=labels, spacing_mm=np.array([2.0, 1.0, 1.0]))
    return {"name": "npz", "file": "stack.npz", "label_values": {"femoral_cartilage": [1]}}


def test_two_clients_that_read_one_archive_are_refused(tmp_path: Path) -> None:
    stack = _archive(tmp_path)
    with pytest.raises(DataError, match="a and b: owners must have no patient in common"):
        list_cases(scenario(tmp_path, {"a": stack, "b": stack}), tmp_path)


def test_clients_share_an_archive_through_a_pool(tmp_path: Path) -> None:
    pools = {"stack": {"source": _archive(tmp_path)}}
    drawn = {"name": "pool", "pool": "stack"}
    list_cases(scenario(tmp_path, {"a": drawn, "b": drawn}, pools=pools), tmp_path)


def test_raykd_check_shows_notes_on_content_and_ends_with_0(tmp_path: Path, write: Write) -> None:
    for index in range(3):
        write(f"north/{index}", index)
    image = nibabel.load(tmp_path / "north/1_seg.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), image.affine), tmp_path / "north/1_seg.nii.gz")
    (tmp_path / "s.yaml").write_text(dump_scenario(scenario(tmp_path, {"north": folder("north")})))
    told = CliRunner().invoke(app, ["check", str(tmp_path / "s.yaml")])
    assert told.exit_code == 0 and told.stderr.count("note: north: some labels have no voxel of a class: ") == 1
    rows = json.loads(CliRunner().invoke(app, ["check", str(tmp_path / "s.yaml"), "--json"]).stdout)
    assert {(row["level"], row["file"]) for row in rows} == {("note", str(tmp_path / "s.yaml"))}
    shutil.copy(tmp_path / "north/0_im.nii.gz", tmp_path / "north/1_im.nii.gz")
    refused = CliRunner().invoke(app, ["check", str(tmp_path / "s.yaml"), "--json"])
    assert refused.exit_code == 2 and [row["level"] for row in json.loads(refused.stdout)][:2] == ["error", "note"]


def manifest(root: Path, name: str, patients: dict[str, str], **settings: Any) -> dict[str, Any]:
    """A manifest of cases with their patients, "" for a table without a column for them."""
    rows = [f"{case}_im.nii.gz,{case}_seg.nii.gz,{case}{patient and f',{patient}'}" for case, patient in patients.items()]
    columns = "image,label,case" + (",patient" if any(patients.values()) else "")
    (root / f"{name}.csv").write_text("\n".join([columns, *rows]) + "\n")
    return {"name": "folder", "manifest": f"{name}.csv", **settings}


NORTH, SOUTH = {"n1": "001", "n2": "002"}, {"s1": "1", "s2": "003"}


@pytest.mark.parametrize(
    ("north", "south", "owns", "clash"),
    [
        (NORTH, SOUTH, (None, None), ["1"]),
        (NORTH, {"s1": "sub-002", "s2": "1 "}, (None, None), ["sub-002", "1"]),
        (NORTH, SOUTH, (None, "own"), []),
        (NORTH, SOUTH, ("own", "own"), []),
        (NORTH, SOUTH, ("city", "city"), ["1"]),
        (NORTH, SOUTH, ("city", "county"), []),
        (NORTH, {"s1": "3", "s2": "4"}, (None, None), []),
        ({"n1": "", "n2": ""}, {"s1": "", "s2": ""}, (None, None), []),
    ],
)
def test_an_id_that_was_given_is_one_person_at_all_sites_unless_a_source_numbers_its_own(
    tmp_path: Path,
    write: Write,
    north: dict[str, str],
    south: dict[str, str],
    owns: tuple[str | None, str | None],
    clash: list[str],
) -> None:
    for index, name in enumerate([*north, *south]):
        write(name, index)
    blocks = {
        name: manifest(tmp_path, name, patients, **({"population": own} if own else {}))
        for name, patients, own in (("north", north, owns[0]), ("south", south, owns[1]))
    }
    built = scenario(tmp_path, blocks)
    if not clash:
        list_cases(built, tmp_path)
        return
    (line,) = refusal(list_cases, built, tmp_path)
    assert line.startswith(f"north and south: owners must have no patient in common, got the ids {', '.join(clash)} with both")
    assert "write `population: own` in the source of south" in line


def test_the_repository_and_a_pool_are_asked_for_persons_too(tmp_path: Path, write: Write) -> None:
    for index, name in enumerate(("n1", "n2", "r1", "r2")):
        write(name, index)
    north, public = manifest(tmp_path, "north", NORTH), manifest(tmp_path, "public", {"r1": "2", "r2": "7"})
    (line,) = refusal(list_cases, scenario(tmp_path, {"north": north}, repository=public), tmp_path)
    assert line.startswith("north and repository: ") and "got the ids 2 with both" in line
    pooled = {"pools": {"all": {"source": north}}}
    built = scenario(tmp_path, {"north": {"name": "pool", "pool": "all"}}, repository=public, **pooled)
    assert refusal(list_cases, built, tmp_path)[0].startswith("north and repository: ")


def test_a_patient_s_cases_may_fall_apart_in_a_pool_that_says_so(tmp_path: Path, write: Write) -> None:
    for index, name in enumerate(("n1", "n2", "n3", "n4")):
        write(name, index)
    block = manifest(tmp_path, "all", dict.fromkeys(("n1", "n2", "n3", "n4"), "1"), unit="case")
    share = {"name": "pool", "pool": "all"}
    list_cases(scenario(tmp_path, {"north": share, "south": share}, pools={"all": {"source": block}}), tmp_path)


class _Listed(Source):
    """Cases of persons, without files."""

    def __init__(self, *persons: Person):
        self.listed = {CaseKey(f"case{index}", f"case{index}"): person for index, person in enumerate(persons)}

    def keys(self) -> list[CaseKey]:
        return list(self.listed)

    def persons(self, key: CaseKey) -> tuple[Person, ...]:
        return (self.listed[key],)

    def load(self, key: CaseKey) -> Any:
        raise NotImplementedError

    def fingerprint(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(("issuers", "is_one"), [(("A", "A"), True), (("A", ""), True), (("", ""), True), (("A", "B"), False)])
def test_ids_of_two_issuers_are_two_persons(issuers: tuple[str, str], is_one: bool) -> None:
    sources = {f"site{index}": _Listed(Person("of the scenario", "1", issuer)) for index, issuer in enumerate(issuers)}
    assert bool(shared_cases(sources)) is is_one


@pytest.mark.parametrize(
    ("names", "is_told"),
    [
        ("p01_visit1 p01_visit2 p02_visit1", True),
        ("anna_pre anna_post bert_pre", True),
        ("001_1 001_2 002_1 002_2", True),
        ("s1_20200101 s1_20210101", True),
        ("17-left 17-right", True),
        ("p01-V1 p01-V2", True),
        ("012a 012b 013a", True),
        ("hippocampus_001 hippocampus_002 hippocampus_003", False),
        ("knee_v1 knee_v2", False),
        ("a b c", False),
        ("1 2 10", False),
        ("case_0001 case_0002", False),
        ("BRATS_001 BRATS_002", False),
    ],
)
def test_names_that_hide_several_cases_of_one_patient_are_told(tmp_path: Path, names: str, is_told: bool) -> None:
    for name in names.split():
        (tmp_path / f"{name}_im.nii.gz").touch()
    block = {"name": "folder", "images": "*_im.nii.gz"}
    assert bool(unnamed_patients(file_source(tmp_path, ("liver",), **block))) is is_told
    assert not unnamed_patients(file_source(tmp_path, ("liver",), **block, patient_pattern="^(.)"))
    assert not unnamed_patients(file_source(tmp_path, ("liver",), **block, unit="case"))


def test_a_check_tells_of_patients_that_a_split_leaves_out_or_puts_aside(tmp_path: Path, write: Write) -> None:
    rows = ["image,label,patient,site"]
    for index, site in enumerate(("Ulm", "Ulm", "Bonn", "", "Bern")):
        write(f"c{index}", index)
        rows.append(f"c{index}_im.nii.gz,c{index}_seg.nii.gz,p{index},{site}")
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    share = {"name": "pool", "pool": "all"}
    pool = {"source": {"name": "folder", "manifest": "all.csv"}, "split": {"by": "column", "column": "site"}}
    (told,) = notes(scenario(tmp_path, {"Ulm": share}, pools={"all": pool}), tmp_path)
    assert "3 patients have a value in column 'site' that no client owns" in told
    assert "no value (1), 'Bern' (1), 'Bonn' (1)" in told
    pool["split"] = {"by": "dirichlet", "column": "site"}
    (told,) = notes(scenario(tmp_path, {"Ulm": share}, pools={"all": pool}), tmp_path)
    assert "pool 'all': 1 patient has no value in column 'site'" in told


def test_a_file_whose_name_is_no_text_is_refused_when_it_is_listed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"M\xfcller_im.nii.gz")).touch()
    (line,) = refusal_of(lambda: file_source(tmp_path, ("liver",), name="folder", images="*_im.nii.gz").keys())
    assert "must be text in UTF-8" in line and "M\\udcfcller_im.nii.gz" in line
    line.encode()


def refusal_of(action: Callable[[], Any]) -> list[str]:
    with pytest.raises(DataError) as refused:
        action()
    return str(refused.value).splitlines()
