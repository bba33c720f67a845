"""The Python interface to runs and studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raykd.launch import Plan, check_plans, launch, refuse_taken
from raykd.results.reader import Run, Tables, load_runs, open_run
from raykd.scenario.errors import RaykdError
from raykd.scenario.load import LoadedScenario, load_scenario, scenario_from_dict
from raykd.scenario.schema import Scenario
from raykd.staging import to_begin
from raykd.storage import url_of


def run(
    scenario: str | Path | Scenario | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    backend: str = "ray",
    address: str | None = None,
) -> Run:
    """Runs a scenario and opens its results.

    Args:
        scenario: a YAML file, a mapping with the same keys, or a `Scenario`. Relative paths in the last two start in the
            current directory.
        out: the run directory or its URL, empty or not there yet; None: `runs/NAME`.
        overrides: `key.path=value`, as `--set` takes them.
        backend: `ray` or `in-process`.
        address: of a Ray cluster; None: `$RAY_ADDRESS`, else one started here.

    Raises:
        RaykdError: the input was refused and nothing was started.
        RunFailed: the run could not be finished.
    """
    loaded = _loaded(scenario, overrides)
    plan = Plan(Path(out or Path("runs") / loaded.scenario.name), loaded.scenario.method.name, loaded.scenario, loaded.root)
    if url := url_of(out or ""):
        plan = to_begin(plan, url)
    refuse_taken([plan])
    check_plans([plan])
    launch([plan], backend=backend, address=address)
    return open_run(plan.run_dir)


def run_study(
    study: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    backend: str = "ray",
    address: str | None = None,
    is_continued: bool = False,
) -> Tables:
    """Runs every cell of a study that is not done, and opens the results of all.

    Args:
        study: a YAML file.
        out: the study's directory or its URL; None: a new one under runs/.
        overrides: `key.path=value`, as `--set` takes them.
        backend: `ray` or `in-process`.
        address: of a Ray cluster; None: `$RAY_ADDRESS`, else one started here.
        is_continued: whether to go on with the study that is in `out`; a directory with nothing in it will do.

    Raises:
        RaykdError: the input was refused and nothing was started.
        RunFailed: a run could not be finished; those before it are done.
    """
    from raykd.commands.study_plans import prepare_study

    if is_continued and out is None:
        raise RaykdError("is_continued goes on in a study's directory; name it with out")

    def how_to_go_on(place: str) -> str:
        return f"raykd.run_study({str(study)!r}, out={place!r}, is_continued=True)"

    wanted = prepare_study(Path(study), overrides, Path(out) if out else None, how_to_go_on, is_continued=is_continued)
    if left := wanted.claimed():
        launch(left, backend=backend, address=address)
    return load_runs(wanted.place)


def _loaded(scenario: str | Path | Scenario | Mapping[str, Any], overrides: Sequence[str]) -> LoadedScenario:
    if isinstance(scenario, str | Path):
        return load_scenario(Path(scenario), overrides)
    data = scenario.model_dump(mode="json") if isinstance(scenario, Scenario) else scenario
    return scenario_from_dict(data, Path.cwd(), overrides)
