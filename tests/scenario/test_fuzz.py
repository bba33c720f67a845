"""Whatever a file holds, the answer is a scenario or a refusal, never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from raykd.scenario.draws import DISTRIBUTIONS
from raykd.scenario.errors import ScenarioError
from raykd.scenario.load import LoadedScenario, load_scenario, scenario_from_dict
from raykd.scenario.study import Study, load_study

GOOD = Path(__file__).parent / "good"
SEED = (GOOD / "full.yaml").read_bytes()
DRAWS = (GOOD / "draws.yaml").read_bytes()
STUDY = b"base: base.yaml\nmethods: [{name: dual, as: x}, {name: average}]\nvary: {clients.*.count: [1, 2]}\nseeds: [1]\n"
STUDY += b"zip: [{training.batch_size: [1, 2], federation.rounds: [3, 4]}]\n"
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)

MUTATIONS = st.lists(st.tuples(st.integers(0, len(SEED)), st.integers(0, 4), st.binary(max_size=3)), min_size=1, max_size=4)
WORDS = [
    "name",
    "clients",
    "extends",
    "base",
    "vary",
    "methods",
    "method",
    "[",
    "]",
    "{",
    "}",
    ":",
    ": ",
    ",",
    "- ",
    "\n",
    "\n  ",
    "&a",
    "*a",
]
WORDS += [
    "!!",
    "<<",
    "|",
    ">",
    "'",
    '"',
    "#",
    "?",
    "%YAML 1.2",
    "---",
    "...",
    "1e999",
    ".nan",
    "012",
    "\t",
    "\0",
    "é",
    "\\x",
    "\\ud800",
    "~",
    " ",
]
YAML_ISH = st.lists(st.sampled_from(WORDS), max_size=30).map("".join)


def mutated(raw: bytes, mutations: list[tuple[int, int, bytes]]) -> bytes:
    for start, length, replacement in mutations:
        raw = raw[:start] + replacement + raw[start + length :]
    return raw


def answer(raw: bytes, tmp_path: Path) -> None:
    """Both readers answer, and a refusal says something."""
    (tmp_path / "base.yaml").write_bytes((GOOD / "base.yaml").read_bytes())
    file = tmp_path / "x.yaml"
    file.write_bytes(raw)
    for load, kind in ((load_scenario, LoadedScenario), (load_study, Study)):
        try:
            assert isinstance(load(file), kind)
        except ScenarioError as error:
            assert error.problems
            assert all(problem.rule and "\n" not in str(problem) for problem in error.problems)


@QUICK
@given(MUTATIONS)
def test_mutated_scenarios(tmp_path: Path, mutations: list[tuple[int, int, bytes]]) -> None:
    answer(mutated(SEED, mutations), tmp_path)


@QUICK
@given(MUTATIONS)
def test_mutated_draws(tmp_path: Path, mutations: list[tuple[int, int, bytes]]) -> None:
    answer(mutated(DRAWS, [(start % len(DRAWS), length, new) for start, length, new in mutations]), tmp_path)


NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 2**62, 1e300, True, None, "x"])
DISTRIBUTION = st.dictionaries(
    st.sampled_from([*DISTRIBUTIONS, "min", "max", "alpha"]),
    st.lists(NUMBERS, max_size=3) | NUMBERS | st.fixed_dictionaries({"alpha": NUMBERS, "total": NUMBERS}),
    max_size=3,
)
KEYS = [
    "count",
    "num_test",
    "labels",
    "spacing_mm",
    "source",
    "source.num_cases",
    "link.up_mbps",
    "training",
    "shifts",
    "drawn",
    "group",
]


@QUICK
@given(st.sampled_from(KEYS), DISTRIBUTION | st.lists(DISTRIBUTION, max_size=3), st.integers(1, 3))
@example("labels", {"choice": [{"choice": [{"num_shots": {"uniform": [1, 2]}}]}]}, 2)
@example("link.up_mbps", {"lognormal": [1e-300, 1e300]}, 3)
def test_any_draw(key: str, draw: Any, count: int) -> None:
    """With a group of several sites, whatever is drawn: a scenario that is read back as it is, or a refusal."""
    group: dict[str, Any] = {"group": "a", "count": count, "source": {"name": "synthetic", "num_cases": 4}}
    if key == "source.num_cases":
        group["source"]["num_cases"] = draw
    elif key == "link.up_mbps":
        group["link"] = {"up_mbps": draw}
    else:
        group[key] = draw
    try:
        scenario = scenario_from_dict({"extends": "base.yaml", "clients": [group]}, GOOD).scenario
        assert scenario_from_dict(scenario.model_dump(mode="json"), GOOD).scenario == scenario
    except ScenarioError as error:
        assert all(problem.rule and "\n" not in str(problem) for problem in error.problems)


@QUICK
@given(MUTATIONS)
def test_mutated_studies(tmp_path: Path, mutations: list[tuple[int, int, bytes]]) -> None:
    answer(mutated(STUDY, [(start % len(STUDY), length, new) for start, length, new in mutations]), tmp_path)


@QUICK
@given(YAML_ISH)
@example("extends: x.yaml")
@example("base: x.yaml")
@example("? ? ? a")
@example("[" * 3000)
@example("- " * 3000)
@example("a: " + "{a: " * 40)
def test_yaml_ish_text(tmp_path: Path, text: str) -> None:
    answer(text.encode(), tmp_path)


@QUICK
@given(st.text(max_size=20), st.text(max_size=20) | YAML_ISH)
@example("clients[0].source", "{name: 3}")
@example("clients.*.*", "1")
@example("name.name", "x")
def test_options(key: str, value: str) -> None:
    try:
        load_scenario(GOOD / "base.yaml", [f"{key}={value}"])
    except ScenarioError as error:
        assert error.problems
