"""From files, dictionaries and options to a scenario, and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raykd.scenario.errors import ScenarioError
from raykd.scenario.load import dump_scenario, load_scenario, scenario_from_dict
from raykd.scenario.schema import Scenario

GOOD = Path(__file__).parent / "good"
FILES = sorted(GOOD.rglob("*.yaml"))


def refusal(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ScenarioError) as error:
        load_scenario(path, overrides)
    return [str(problem).replace(f"{GOOD}/", "") for problem in error.value.problems]


def small(**changes: Any) -> dict[str, Any]:
    network = {"network": {"name": "plain"}}
    source = {"name": "synthetic", "num_cases": 4}
    data: dict[str, Any] = {
        "name": "small",
        "classes": ("femur",),
        "repository": {"source": source, "teacher": network},
        "clients": [{"group": "a", "source": source}],
        "student": network,
        "method": {"name": "dual"},
    }
    return {**data, **changes}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_good_files_survive_a_round_trip(file: Path, tmp_path: Path) -> None:
    loaded = load_scenario(file)
    copy = tmp_path / "resolved.yaml"
    copy.write_text(dump_scenario(loaded.scenario), encoding="utf-8")
    again = load_scenario(copy)
    assert again.scenario == loaded.scenario
    assert again.scenario.content_hash() == loaded.scenario.content_hash()
    assert (loaded.root, loaded.path) == (file.parent, file)


def test_json_of_a_scenario_is_read_back() -> None:
    scenario = load_scenario(GOOD / "chain" / "top.yaml").scenario
    assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario


def test_words_stay_words() -> None:
    classes = load_scenario(GOOD / "full.yaml", ["classes=[no, on, 2020-01-02, 0x, '012', '1e-3']"]).scenario.classes
    assert classes == ("no", "on", "2020-01-02", "0x", "012", "1e-3")


def test_extends_merges_blocks_and_replaces_lists_scalars_and_other_plugins() -> None:
    scenario = load_scenario(GOOD / "chain" / "top.yaml").scenario
    assert scenario.name == "middle"
    assert scenario.seed == 16
    assert scenario.repository.source.num_cases == 8
    assert (scenario.repository.teacher.num_steps, scenario.repository.teacher.network.width) == (50, 4)
    assert scenario.student.network.model_dump() == {"name": "deep", "depth": 2}
    assert [group.group for group in scenario.clients] == ["only"]
    assert (scenario.training.learning_rate, scenario.training.patch_shape, scenario.training.optimiser) == (
        0.001,
        (8, 8, 8),
        "sgd",
    )
    assert scenario.method.model_dump() == {"name": "average"}
    assert [shift.degrees for shift in scenario.clients[0].shifts] == [10, 5]


def test_a_group_inherits_the_training_it_does_not_state() -> None:
    training = load_scenario(GOOD / "chain" / "top.yaml").scenario.clients[0].training
    assert training is not None
    assert (training.batch_size, training.optimiser, training.learning_rate) == (1, "sgd", 0.001)
    empty = load_scenario(GOOD / "chain" / "top.yaml", ["clients[0].training={}"]).scenario
    assert empty.clients[0].training == empty.training


def test_problems_of_an_extended_file_are_told_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("method:\n  name: dual\n  temperature: hot\n  weights: {response: 1}\n")
    top = tmp_path / "top.yaml"
    top.write_text(f"extends: below.yaml\nzeal: 3\nmethod: {{weights: {{response: -1}}}}\n{dump_scenario_less_method()}")
    assert [(Path(line.split(":")[0]).name, line.split(": ", 1)[1]) for line in refusal(top)] == [
        ("below.yaml", 'method.temperature: must be a number, got "hot"'),
        ("top.yaml", "zeal: unknown key; known: " + ", ".join(sorted([*Scenario.model_fields, "extends"]))),
        ("top.yaml", "method.weights.response: must be at least 0.0, got -1"),
    ]


def dump_scenario_less_method() -> str:
    text = (GOOD / "base.yaml").read_text()
    return text[: text.index("method:")]


def test_a_longer_circle_is_refused(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "sub/../c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {base}.yaml\n")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ScenarioError) as error:
        load_scenario(tmp_path / "a.yaml")
    (problem,) = error.value.problems
    assert (Path(problem.file).name, problem.line, problem.rule) == ("c.yaml", 1, "must not lead back to the file itself")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("seed=3", lambda s: s.seed == 3),
        ("training.learning_rate=1e-4", lambda s: math.isclose(s.training.learning_rate, 0.0001)),
        ("description=a = b", lambda s: s.description == "a = b"),
        ("clients[1].labels.num_shots=1", lambda s: [g.labels.num_shots for g in s.clients] == [2, 1]),
        ("clients.*.labels.num_shots=5", lambda s: [g.labels.num_shots for g in s.clients] == [5, 5]),
        ("clients[*].labels.num_shots=5", lambda s: [g.labels.num_shots for g in s.clients] == [5, 5]),
        ("clients[0].spacing_mm=[3, 1, 1]", lambda s: s.clients[0].spacing_mm == (3, 1, 1)),
        ("method.name=average", lambda s: s.method.model_dump() == {"name": "average"}),
        ("method.name=dual", lambda s: s.method.temperature == 2),
        ("method={name: dual, levels: 2}", lambda s: (s.method.levels, s.method.temperature) == (2, 2)),
        ("clients[0].source.labels.7=femur", None),
        ("repository.teacher.network.name=deep", lambda s: s.repository.teacher.network.depth == 4),
        ("clients[0].student.network.name=deep", lambda s: s.clients[0].student.network.depth == 4),
        ("classes[1]=patella", lambda s: s.classes == ("femur", "patella")),
        ("clients[0].shifts=[{name: tilt}]", lambda s: s.clients[0].shifts[0].degrees == 5),
    ],
)
def test_overrides(option: str, expected: Any) -> None:
    if expected is None:
        assert refusal(GOOD / "base.yaml", option) == [
            f"--set {option}: must be written KEY.PATH=VALUE; as in --set clients[0].labels.num_shots=1"
        ]
    else:
        assert expected(load_scenario(GOOD / "base.yaml", [option]).scenario)


def test_overrides_are_applied_in_order() -> None:
    options = ["method.temperature=9", "method.name=average", "method.name=dual", "method.levels=1", "seed=1", "seed=2"]
    scenario = load_scenario(GOOD / "base.yaml", options).scenario
    assert (scenario.seed, scenario.method.temperature, scenario.method.levels) == (2, 2.0, 1)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("seed", "must be written KEY.PATH=VALUE; as in --set clients[0].labels.num_shots=1"),
        ("seed=", "must be written KEY.PATH=VALUE; as in --set clients[0].labels.num_shots=1"),
        ("=3", "must be written KEY.PATH=VALUE; as in --set clients[0].labels.num_shots=1"),
        ("clients[x].count=3", "must be written KEY.PATH=VALUE; as in --set clients[0].labels.num_shots=1"),
        ("a..b=3", "must be written KEY.PATH=VALUE; as in --set clients[0].labels.num_shots=1"),
        (".".join("a" * 40) + "=3", "must be written KEY.PATH=VALUE; as in --set clients[0].labels.num_shots=1"),
        ("seed=3.5", "seed: must be a whole number, got 3.5"),
        ("seed=012", "seed: must not begin with 0, got 012; write the number without it, or quote it to mean text"),
        ("classes=[femur", "classes: is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("sed=3", "sed: unknown key; did you mean 'seed'?"),
        ("evaluation.evry=3", "evaluation.evry: unknown key; did you mean 'every'?"),
        ("clients[2].count=3", "clients[2]: no such element; clients has 2 elements, the first being clients[0]"),
        ("client[0].count=3", "client: no such list; did you mean 'clients'?"),
        (
            "clients.count=3",
            "clients.count: clients is a list, not a block; write clients[0].count for its first element, clients.*.count for all",
        ),
        ("name.x=3", "name.x: name is not a block"),
        ("name[0]=3", "name[0]: name is not a list"),
        ("student.*=3", "student.*: student is not a list"),
    ],
)
def test_refused_overrides_name_the_option(option: str, expected: str) -> None:
    assert refusal(GOOD / "base.yaml", option) == [f"--set {option}: {expected}"]


def test_all_refused_overrides_are_told() -> None:
    assert len(refusal(GOOD / "base.yaml", "seed", "x", "classes=[")) == 3
    assert len(refusal(GOOD / "base.yaml", "name.a=1", "clients[9]=1", "seed=1")) == 2
    assert refusal(GOOD / "base.yaml", "clients.*.count=0", "seed=-1") == [
        "--set clients.*.count=0: clients[0].count: must be at least 1, got 0",
        "--set clients.*.count=0: clients[1].count: must be at least 1, got 0",
        "--set seed=-1: seed: must be at least 0, got -1",
    ]


def test_python_data_becomes_the_same_scenario(tmp_path: Path) -> None:
    loaded = scenario_from_dict(small(extends="base.yaml"), GOOD, ["seed=4"])
    assert loaded.scenario.method.temperature == 2.0
    assert (loaded.scenario.seed, loaded.root, loaded.path) == (4, GOOD, None)
    assert loaded.scenario.classes == ("femur",)


def circle() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["a"] = data
    return data


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": 1.5}, "seed: must be a whole number, got 1.5"),
        ({"seed": np.int64(3)}, "seed: must be plain data (dict, list, text, number, true, false, null), got int64"),
        ({"training": {"learning_rate": math.nan}}, "training.learning_rate: must be a finite number, got NaN"),
        ({"description": "\ud800"}, 'description: must hold no control characters, got "\\ud800"'),
        ({"method": {"name": "dual", 3: 4}}, "method: keys must be text, got 3"),
        ({"method": circle()}, "must not be nested deeper than 32 levels"),
        ({"extends": 3}, "extends: must be the path of a YAML file, got 3"),
        ({"method": {"name": "dual", "wieghts": 1}}, "method.wieghts: unknown key; did you mean 'weights'?"),
    ],
)
def test_python_data_is_refused_with_the_same_words(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ScenarioError) as error:
        scenario_from_dict(small(**changes), GOOD)
    assert str(error.value) == expected


@pytest.mark.parametrize(
    "text", ["${HOME}", "$HOME", "{{ name }}", "__import__('os').getcwd()", "!!python", "%HOME%", "`id`", "=1+1"]
)
def test_text_stays_text(text: str) -> None:
    """No environment value, template, import or expression is ever evaluated."""
    assert load_scenario(GOOD / "base.yaml", [f"description='{text.replace(chr(39), chr(39) * 2)}'"]).scenario.description == text


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-rf", "", "x" * 65, "a\\b", "~", "$HOME"])
@pytest.mark.parametrize("key", ["name", "clients[0].group", "clients[1].name", "classes[0]"])
def test_names_that_could_lead_out_of_a_folder_are_refused(key: str, name: str) -> None:
    (line,) = refusal(GOOD / "base.yaml", f"{key}='{name}'")
    assert f"{key}: must be 1 to 64 {'letters, digits' if key == 'name' else 'characters of any script'}" in line


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "base", "", "base.yaml/../secret"])
def test_only_yaml_files_are_extended(target: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password: hunter2\n")
    with pytest.raises(ScenarioError, match="must be the path of a YAML file") as error:
        scenario_from_dict(small(extends=target), tmp_path)
    assert "hunter2" not in str(error.value)
