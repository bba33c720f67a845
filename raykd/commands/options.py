"""The options that commands share, and the plans that their arguments ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from raykd.launch import Plan
    from raykd.scenario.document import Node
    from raykd.scenario.study import Study

REFUSED, FAILED, INTERRUPTED = 2, 3, 130
SIGNALLED = 128
"""Plus the signal's number: 130 after Ctrl-C, 143 after SIGTERM."""

PLUGIN_KEYS = {"repository", "pools", "proxy", "clients", "student", "method"}
"""Keys of a scenario whose blocks name plug-ins."""


def shipped_is_copied(path: Path) -> Path:
    """The path as it was given. Raises `RaykdError` where no file is there and a scenario that comes with raykd has this name."""
    from raykd.commands.shipped import shipped
    from raykd.scenario.errors import RaykdError

    name = path.with_suffix("") if path.suffix == ".yaml" else path
    if not path.exists() and (known := name.as_posix().removeprefix("scenarios/")) in {one.name for one in shipped()}:
        raise RaykdError(f"{path}: no such file; `raykd new --from {known}` writes the one of this name that comes with raykd")
    return path


ScenarioPath = Annotated[
    Path, typer.Argument(metavar="SCENARIO", help="A scenario's YAML file.", show_default=False, callback=shipped_is_copied)
]
StudyPath = Annotated[
    Path, typer.Argument(metavar="STUDY", help="A study's YAML file.", show_default=False, callback=shipped_is_copied)
]
Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Replaces a key of the scenario; repeatable.", show_default=False)
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where to write, a path or a URL (s3://...); default: a new directory under runs/."),
]
BackendName = Annotated[str, typer.Option("--backend", metavar="ray|in-process", help="Where clients run.")]
Address = Annotated[
    str | None, typer.Option("--address", metavar="ADDR", help="A Ray cluster; default: $RAY_ADDRESS, else one started here.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Shows no progress.")]


def reach(backend: str, address: str | None, detach: bool = False) -> None:
    """Sees to the cluster that is to run something, before anything slow is imported: one that stands must answer, one of this
    process's own begins to start. Raises `RaykdError` where it does not answer.
    """
    from raykd.runtime.address import LOCAL, ready_address
    from raykd.runtime.ray_own import begin
    from raykd.scenario.errors import RaykdError

    if detach and backend != "ray":
        raise RaykdError(f"--detach leaves the run to a Ray cluster, got --backend {backend}; leave one of them out")
    target = ready_address(address) if backend == "ray" else LOCAL
    if detach and target == LOCAL:
        raise RaykdError("--detach leaves the run to a standing cluster, got none; give --address HOST:PORT or set RAY_ADDRESS")
    if target == LOCAL and backend == "ray":
        begin()


def plan_scenario(path: Path, overrides: list[str], out: Path | None, *, may_have_begun: bool = False) -> Plan:
    """The run that a scenario's file asks for; where its directory is a URL, nobody else writes there.

    Args:
        path, overrides: the file, and what is set in it.
        out: where it goes; None: into a new directory.
        may_have_begun: whether a run may be there, which is then fetched.
    """
    from dataclasses import replace

    from raykd.launch import Plan
    from raykd.scenario.load import load_scenario, read_document
    from raykd.staging import check_out, has_begun, to_begin
    from raykd.storage import url_of

    _prepare_plugins(read_document(path))
    loaded = load_scenario(path, overrides)
    run_dir, url = out or new_directory(loaded.scenario.name), url_of(out or "")
    plan = Plan(run_dir, loaded.scenario.method.name, loaded.scenario, loaded.root)
    if url is None:
        return plan
    if may_have_begun and has_begun(url):
        return replace(plan, run_dir=check_out(url), url=url)
    return to_begin(plan, url)


def plan_study(path: Path, overrides: list[str], out: Path | None) -> tuple[Study, list[Plan], Path]:
    """What a study's file asks for: the study, the runs of its cells, and the directory that holds theirs."""
    from raykd.commands.study_record import record_of
    from raykd.launch import Plan
    from raykd.scenario.study import base_document, load_study

    _prepare_plugins(base_document(path))
    loaded = load_study(path, overrides)
    folder = out or new_directory(loaded.name)
    record = record_of(loaded, folder)
    plans = [
        Plan(
            folder / cell.cell_id,
            cell.method_label,
            cell.loaded.scenario,
            cell.loaded.root,
            record,
            settings=cell.settings_text,
            number=number,
            num_runs=len(loaded.cells),
        )
        for number, cell in enumerate(loaded.cells, start=1)
    ]
    return loaded, plans, folder


def _prepare_plugins(document: Node | None) -> None:
    """Imports what plug-ins import, in the quick way, where the document names any: what is no scenario is refused without."""
    if document is not None and isinstance(document.value, dict) and PLUGIN_KEYS & document.value.keys():
        from raykd.runtime.quick_start import import_monai

        import_monai()


def new_directory(name: str) -> Path:
    """The first of runs/NAME, runs/NAME-2, ... that does not exist."""
    folder, number = Path("runs") / name, 2
    while folder.exists():
        folder, number = Path("runs") / f"{name}-{number}", number + 1
    return folder
