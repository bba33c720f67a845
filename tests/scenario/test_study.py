"""What a study expands to, counted by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from raykd.scenario.errors import ScenarioError
from raykd.scenario.load import load_scenario
from raykd.scenario.study import is_study, load_study

GOOD = Path(__file__).parent / "good"
Write = Callable[[str], Path]
BASE = (GOOD / "base.yaml").read_text()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "base.yaml").write_text(BASE)

    def write_study(text: str) -> Path:
        Path("shots.yaml").write_text(f"base: scenarios/base.yaml\n{text}")
        return Path("shots.yaml")

    return write_study


def refusal(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ScenarioError) as error:
        load_study(path, overrides)
    return [str(problem) for problem in error.value.problems]


def test_a_base_may_be_an_absolute_path(write: Write, tmp_path: Path) -> None:
    path = write("seeds: [1]\n")
    path.write_text(f"base: {tmp_path / 'scenarios/base.yaml'}\nseeds: [1]\n")
    study = load_study(path)
    assert study.base == tmp_path / "scenarios/base.yaml" == study.cells[0].loaded.path
    (tmp_path / "extending.yaml").write_text(f"extends: {tmp_path / 'scenarios/base.yaml'}\nseed: 9\n")
    assert load_scenario(tmp_path / "extending.yaml").scenario.seed == 9


def test_methods_times_values_times_seeds(write: Write) -> None:
    text = """
name: how-many-shots
description: Two methods, one of them twice.
methods:
  - {name: average}
  - {name: dual}
  - {name: dual, as: dual-hot, temperature: 9}
vary:
  clients.*.labels.num_shots: [1, 2]
  training.patch_shape: [[8, 8, 8], [16, 16, 16]]
seeds: [3, 4]
"""
    study = load_study(write(text))
    assert (study.name, study.description) == ("how-many-shots", "Two methods, one of them twice.")
    assert len(study.cells) == 3 * 2 * 2 * 2
    assert len({cell.cell_id for cell in study.cells}) == 24
    assert all(re.fullmatch(r"[A-Za-z0-9._=-]{1,120}", cell.cell_id) for cell in study.cells)
    assert study.cells[0].cell_id == "average--clients.all.labels.num_shots=1--training.patch_shape=_8_8_8--seed3"
    last = study.cells[-1]
    assert last.cell_id == "dual-hot--clients.all.labels.num_shots=2--training.patch_shape=_16_16_16--seed4"
    assert (last.method_label, last.loaded.scenario.method.name, last.loaded.scenario.method.temperature) == ("dual-hot", "dual", 9)
    assert last.varied == {"clients.*.labels.num_shots": 2, "training.patch_shape": [16, 16, 16]}
    assert [group.labels.num_shots for group in last.loaded.scenario.clients] == [2, 2]
    assert (last.loaded.scenario.name, last.loaded.scenario.seed) == ("how-many-shots", 4)
    assert last.loaded.root == Path("scenarios").absolute()
    # the base softens by 2.0; a method of the study takes the whole block's place
    assert {cell.loaded.scenario.method.temperature for cell in study.cells if cell.method_label == "dual"} == {2.0}
    assert [cell.method_label for cell in study.cells].count("average") == 8


def test_zipped_keys_change_together_and_combine_with_the_rest(write: Write) -> None:
    text = """
vary: {federation.rounds: [5, 6]}
zip:
  - {training.batch_size: [1, 2, 3], clients.*.labels.num_shots: [4, 3, 2]}
  - {training.num_local_steps: [7, 8]}
seeds: [0, 1]
"""
    scenarios = [cell.loaded.scenario for cell in load_study(write(text)).cells]
    assert len(scenarios) == 2 * 3 * 2 * 2
    pairs = [(s.training.batch_size, s.clients[1].labels.num_shots) for s in scenarios]
    assert set(pairs) == {(1, 4), (2, 3), (3, 2)}
    assert (
        len({(s.federation.rounds, pair, s.training.num_local_steps, s.seed) for s, pair in zip(scenarios, pairs, strict=True)})
        == 24
    )
    first = load_study(write(text)).cells[0]
    assert first.varied == {
        "federation.rounds": 5,
        "training.batch_size": 1,
        "clients.*.labels.num_shots": 4,
        "training.num_local_steps": 7,
    }


def test_a_study_of_nothing_is_its_base(write: Write) -> None:
    (cell,) = load_study(write("")).cells
    assert (cell.cell_id, cell.method_label, cell.varied) == ("dual--seed0", "dual", {})
    assert cell.loaded.scenario.name == "shots"


def test_null_means_absent(write: Write) -> None:
    (cell,) = load_study(write("name: null\nmethods: null\nseeds: null\n")).cells
    assert (cell.cell_id, cell.loaded.scenario.name) == ("dual--seed0", "shots")
    (cell,) = load_study(write("methods: [{name: average, as: null}]\n")).cells
    assert (cell.method_label, cell.loaded.scenario.method.name) == ("average", "average")


def test_a_base_without_a_method(write: Write, tmp_path: Path) -> None:
    path = write("seeds: [1]\n")
    (tmp_path / "scenarios" / "base.yaml").write_text(BASE[: BASE.index("method:")])
    assert refusal(path) == ["scenarios/base.yaml:1:1: method: is required; in cell no-method--seed1"]


def test_overrides_reach_the_study_or_every_cell(write: Write) -> None:
    path = write("methods: [{name: average}, {name: dual, temperature: 5}]\nseeds: [0, 1, 2]\n")
    study = load_study(path, ["seeds=[7]", "federation.rounds=1", "name=quick"])
    assert [cell.cell_id for cell in study.cells] == ["average--seed7", "dual--seed7"]
    assert {cell.loaded.scenario.federation.rounds for cell in study.cells} == {1}
    assert study.name == study.cells[0].loaded.scenario.name == "quick"
    (cell,) = load_study(path, ["seeds=[7]", "methods=[{name: dual}]", "method.temperature=8"]).cells
    assert cell.loaded.scenario.method.temperature == 8


def test_names_that_differ_only_by_what_a_folder_cannot_hold(write: Write) -> None:
    values = ["a b", "a/b", "A b", "x" * 200, "x" * 201]
    cells = load_study(write(f"vary: {{description: {values}}}\n")).cells
    assert len({cell.cell_id.casefold() for cell in cells}) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9._=-]{1,120}", cell.cell_id) for cell in cells)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: [1]\n", ["shots.yaml:2:1: seed: unknown key; did you mean 'seeds'?"]),
        ("seeds: [1, 2, 1]\n", ["shots.yaml:2:1: seeds: must differ from one another, got 1"]),
        ("seeds: []\n", ["shots.yaml:2:1: seeds: must have at least 1 element, got []"]),
        ("seeds: [-1]\n", ["shots.yaml:2:9: seeds[0]: must be at least 0, got -1"]),
        ("methods: [average]\n", ['shots.yaml:2:11: methods[0]: must be a block of keys, got "average"; write {name: average}']),
        ("methods: [{as: x}]\n", ["shots.yaml:2:11: methods[0].name: is required"]),
        (
            "methods: [{name: dual}, {name: dual, temperature: 3}]\n",
            ["shots.yaml:2:1: methods: must differ from one another, got \"dual\"; name one of them otherwise with 'as'"],
        ),
        ("vary: {seed: 3}\n", ["shots.yaml:2:8: vary.seed: must be a list, got 3"]),
        (
            "vary: {seed: [3]}\nseeds: [4]\n",
            ["shots.yaml:3:1: sets seed, but the study also sets seed"],
        ),
        (
            "vary:\n  clients.*.labels: [{}]\n  clients[0].labels.num_shots: [1]\n",
            ["shots.yaml:4:3: sets clients[0].labels.num_shots, but the study also sets clients.*.labels"],
        ),
        (
            "vary: {method: [{name: dual}]}\nmethods: [{name: dual}]\n",
            ["shots.yaml:3:1: sets method.name, but the study also sets method"],
        ),
        (
            "zip:\n  - seed: [1, 2]\n    federation.rounds: [1, 2, 3]\n",
            ["shots.yaml:3:5: zip[0]: keys that change together must have equally many values, got seed 2, federation.rounds 3"],
        ),
        (
            "zip: [{federation.rounds: [1, 2, 1], training.batch_size: [3, 4, 3]}]\n",
            ["shots.yaml:2:7: zip[0]: must differ from one another, got [1, 3]"],
        ),
        (
            "vary: {training.batch_size: [1]}\nzip: [{training.batch_size: [1, 2]}]\n",
            ["shots.yaml:3:8: sets training.batch_size, but the study also sets training.batch_size"],
        ),
        ("zip: [{}]\n", ["shots.yaml:2:7: zip[0]: must have at least 1 element, got {}"]),
        ("zip: {seed: [1]}\n", ['shots.yaml:2:1: zip: must be a list, got {"seed": [1]}']),
        (
            "zip: [{a..b: [1]}]\n",
            ["shots.yaml:2:7: zip[0]: must have key paths of a scenario as keys; as in clients.*.labels.num_shots: [1, 2]"],
        ),
        (
            "vary: {a..b: [3]}\n",
            ["shots.yaml:2:1: vary: must have key paths of a scenario as keys; as in clients.*.labels.num_shots: [1, 2]"],
        ),
        (
            f"vary: {{seed: [1, 2, 3, 4, 5], federation.rounds: {list(range(51))}, training.batch_size: {list(range(50))}}}\n",
            ["shots.yaml:1:1: must have at most 10000 cells, got 12750"],
        ),
        ("vary: {client.*.count: [1]}\n", ["shots.yaml:2:25: client: no such list; did you mean 'clients'?"]),
        (
            "methods: [{name: average}, {name: dual, temprature: 3}]\n",
            ["shots.yaml:2:41: method.temprature: unknown key; did you mean 'temperature'?; in cell dual--seed0"],
        ),
        (
            "methods: [{name: average}, {name: dula}]\nvary: {federation.rounds: [0, 1]}\n",
            [
                "shots.yaml:3:28: federation.rounds: must be at least 1, got 0; "
                "in cell average--federation.rounds=0--seed0 and 1 more",
                "shots.yaml:2:29: method.name: unknown method 'dula'; did you mean 'dual'?; "
                "in cell dula--federation.rounds=0--seed0 and 1 more",
            ],
        ),
        (
            "vary: {federation.rond: [1, 2]}\n",
            [
                "shots.yaml:2:26: federation.rond: unknown key; did you mean 'rounds'?; in cell dual--federation.rond=1--seed0",
                "shots.yaml:2:29: federation.rond: unknown key; did you mean 'rounds'?; in cell dual--federation.rond=2--seed0",
            ],
        ),
    ],
)
def test_refused_studies(text: str, expected: list[str], write: Write) -> None:
    assert refusal(write(text)) == expected


def test_a_problem_of_the_base_is_told_once(write: Write, tmp_path: Path) -> None:
    path = write("seeds: [1, 2]\n")
    (tmp_path / "scenarios" / "base.yaml").write_text(BASE + "federation: {rounds: 0}\n")
    assert refusal(path) == ["scenarios/base.yaml:15:14: federation.rounds: must be at least 1, got 0; in every cell"]
    assert refusal(path, "federation.rounds=-1") == [
        "--set federation.rounds=-1: federation.rounds: must be at least 1, got -1; in every cell"
    ]


def test_an_override_of_what_the_study_sets_is_refused(write: Write) -> None:
    path = write("seeds: [1, 2]\nmethods: [{name: dual}]\nvary: {clients.*.count: [1, 2]}\n")
    hint = "; set the study's own methods, vary, zip or seeds instead"
    assert refusal(path, "seed=3", "method={name: dual}", "clients[1].count=4", "clients[1].num_test=4") == [
        f"--set seed=3: seed: the study itself sets seed{hint}",
        f"--set method={{name: dual}}: method: the study itself sets method.name{hint}",
        f"--set clients[1].count=4: clients[1].count: the study itself sets clients.*.count{hint}",
    ]


@pytest.mark.parametrize("base", ["/etc/hosts", "../../etc/passwd", "${HOME}", "~", "base"])
def test_a_base_is_a_yaml_file_and_nothing_else_is_read(base: str, write: Write, tmp_path: Path) -> None:
    Path("s.yaml").write_text(f"base: '{base}'\n")
    assert refusal(Path("s.yaml")) == [f's.yaml:1:1: base: must be the path of a YAML file, got "{base}"']


def test_nothing_in_a_study_is_looked_up_or_run(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDS", "3")
    values = ["${ROUNDS}", "{{ 3 }}", "$ROUNDS", "__import__('os').getcwd()", "../../x", "1 + 1"]
    cells = load_study(write(f"vary: {{description: {values}}}\n")).cells
    assert [cell.loaded.scenario.description for cell in cells] == values
    assert all(re.fullmatch(r"[A-Za-z0-9._=-]+", cell.cell_id) and ".." not in cell.cell_id.split("=") for cell in cells)


def test_a_missing_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text("seeds: [1]\n")
    assert refusal(Path("s.yaml")) == ["s.yaml:1:1: base: is required"]
    Path("s.yaml").write_text("seeds: [1]\nbase: none.yaml\n")
    assert refusal(Path("s.yaml")) == ["s.yaml:2:1: base: no such file, got none.yaml"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("base: x.yaml\n", True),
        ("base: x.yaml\nname: a\nseeds: [1]\n", True),
        ("methods: [{name: dual}]\nvary: {}\n", True),
        (BASE, False),
        ("extends: x.yaml\nseed: 3\n", False),
        ("extends: x.yaml\nseeds: 3\n", False),
        ("- base\n", False),
    ],
)
def test_studies_are_told_from_scenarios(text: str, answer: bool, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert is_study(file) is answer
