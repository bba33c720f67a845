"""Commands about data that no scenario names yet: what lies in a directory, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raykd.commands.options import REFUSED, AsJson

if TYPE_CHECKING:
    from raykd.data.inspection import CaseFacts
    from raykd.data.layouts import Guess
    from raykd.data.sources._files import FileSource

app = typer.Typer(help="Looks at data before a scenario names it.", no_args_is_help=True, rich_markup_mode=None)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A directory with images, and labels.", show_default=False)]
Images = Annotated[
    str | None, typer.Option("--images", metavar="GLOB", help="Images, from DIR, with one '*' for the case's name: img/*_t1.nii.gz")
]
Labels = Annotated[
    str | None, typer.Option("--labels", metavar="GLOB", help="Their labels, from DIR, with '*' for the case's name.")
]
Manifest = Annotated[str | None, typer.Option("--manifest", metavar="FILE", help="A CSV or JSON list of cases, from DIR.")]
Layout = Annotated[
    str | None,
    typer.Option("--layout", metavar="NAME", help="The source that reads it, as nnunet or bids; default: it is guessed."),
]
SetSource = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Sets a key of the source, as suffix=FLAIR or modality=ct; repeatable.",
        show_default=False,
    ),
]


@app.callback()
def _root() -> None:
    """Keeps `check` a command of its own."""


@app.command()
def check(
    directory: Directory,
    images: Images = None,
    labels: Labels = None,
    manifest: Manifest = None,
    layout: Layout = None,
    set_: SetSource = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Reads every case of a directory and says what is there, what is wrong, and how a scenario names it."""
    from raykd.data.inspection import duplicates, inspect_source

    guess = _guess(directory, images, labels, manifest, layout)
    source = _source(_with_settings(guess.block, set_), str(directory))
    found = inspect_source(source, source.load_as_written, _named_values(source) or None)
    facts, problems = found.facts, found.problems
    problems += [problem for problem in duplicates(facts) if not any(_is_about(problem, said) for said in problems)]
    problems += _without_label(facts)
    notes = [*_patient_notes(source), *found.notes]
    block, classes = _suggestion(source, facts)
    is_told = images is not None or manifest is not None
    if as_json:
        cases = [vars(case) | {"voxels": None if case.voxels is None else dict(case.voxels)} for case in facts]
        told = {"guess": None if is_told else str(guess), "source": block, "classes": classes, "cases": cases}
        typer.echo(json.dumps({**told, "problems": problems, "notes": notes}, indent=2))
    else:
        typer.echo("" if is_told else f"# {guess}\n\n", nl=False)
        _print(facts, problems, notes, block, classes)
    if problems:
        raise typer.Exit(REFUSED)


def _patient_notes(source: FileSource) -> list[str]:
    """What may not be as the owner of the data thinks of who is who."""
    from raykd.data.identity import unnamed_patients
    from raykd.data.patient_notes import spelt_alike
    from raykd.scenario.errors import DataError

    try:
        return [note for note in (unnamed_patients(source), spelt_alike(source)) if note]
    except DataError:
        return []  # told with the problems


def _guess(directory: Path, images: str | None, labels: str | None, manifest: str | None, layout: str | None) -> Guess:
    """The `source` block that the options describe, or that the directory looks like."""
    from raykd.data.layouts import Guess, guess_layout
    from raykd.scenario.errors import RaykdError

    if images is not None and manifest is None and layout in (None, "folder", "dicom"):
        patterns = {"images": images} | ({"labels": labels} if labels else {})
        return Guess({"name": layout or "folder", **{key: str(directory / pattern) for key, pattern in patterns.items()}})
    if images is not None or labels is not None or (manifest is not None and layout is not None):
        raise RaykdError(
            "give either --images (with --labels where there are any, and --layout dicom for series), or --manifest, or --layout, "
            "or none of them"
        )
    if manifest is not None:
        return Guess({"name": "folder", "manifest": str(directory / manifest)})
    return guess_layout(directory, layout)


def _with_settings(block: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A block with what `--set` sets in it. Raises `ScenarioError`."""
    from raykd.scenario.document import from_plain
    from raykd.scenario.load import apply_overrides, parse_overrides

    if not settings:
        return block
    changed: dict[str, Any] = apply_overrides(from_plain(block), parse_overrides(settings)).plain()
    return changed


def _source(block: dict[str, Any], owner: str) -> FileSource:
    """The source of a block, whose files may lie anywhere and whose cases may lack labels, which is told otherwise."""
    from pydantic import ValidationError

    from raykd.data.sources._files import FileSource
    from raykd.scenario.document import from_plain
    from raykd.scenario.errors import RaykdError, ScenarioError
    from raykd.scenario.problems import problems_of
    from raykd.scenario.registry import SOURCES

    cls = SOURCES.get(str(block.get("name")))
    if not issubclass(cls, FileSource):
        raise RaykdError(f"source {block['name']}: must be one that reads files, got one that makes its cases")
    try:
        settings = cls.Settings.model_validate_json(json.dumps({**block, "allow_outside": True, "allow_unlabelled": True}))
    except ValidationError as error:
        raise ScenarioError(problems_of(error.errors(include_url=False), from_plain(block), cls.Settings)) from None
    return cls(settings, (), 0, owner, Path())


def _is_about(problem: str, said: str) -> bool:
    """Whether a duplicate was already told of by the source, which compares files and names the case alike."""
    case = problem.split(": images must differ")[0].rpartition("case ")[2]
    return f"case {case}" in said and "images must differ" in said


def _named_values(source: FileSource) -> dict[str, tuple[int, ...]]:
    """The values of each structure that the layout names; none where it names none, or names them in two ways."""
    from raykd.scenario.errors import DataError

    try:
        return dict(source.label_names() or {})
    except DataError:
        return {}


def _without_label(facts: Sequence[CaseFacts]) -> list[str]:
    if all(case.voxels is None for case in facts):
        return []
    rule = "a case must have its label while others have theirs, got none; add it, or set allow_unlabelled: true"
    return [f"case {case.case_id!r}: {rule}" for case in facts if case.voxels is None]


def _suggestion(source: FileSource, facts: Sequence[CaseFacts]) -> tuple[dict[str, Any], list[str]]:
    """The block to paste, and names for the classes: those of the layout, or one for each value found."""
    from raykd.data.content import looks_like_ct
    from raykd.data.sources._labels import normalised

    block = source.settings.model_dump(mode="json", exclude_unset=True, exclude={"allow_outside", "allow_unlabelled"})
    if not all(path.resolve().is_relative_to(Path.cwd()) for key in _keys(source)[:1] for path in source.files(key)):
        block["allow_outside"] = True
    if "modality" not in block and looks_like_ct(facts):
        block["modality"] = "ct"
    names = _named_values(source)
    if names:
        return block, _without_overlap({normalised(name): values for name, values in names.items()})
    values = sorted({value for case in facts for value in case.voxels or () if value != 0})
    if values:
        block["label_values"] = {f"class_{value}": [value] for value in values}
    return block, [f"class_{value}" for value in values]


def _without_overlap(names: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names in their order, without those that share a value with one before: synonyms, and parts of a whole."""
    taken, kept = set[int](), list[str]()
    for name, values in names.items():
        if not taken & set(values):
            kept.append(name)
            taken |= set(values)
    return kept


def _keys(source: FileSource) -> list[Any]:
    from raykd.scenario.errors import DataError

    try:
        return source.keys()
    except DataError:
        return []


def _print(
    facts: Sequence[CaseFacts], problems: Sequence[str], notes: Sequence[str], block: dict[str, Any], classes: Sequence[str]
) -> None:
    from raykd.scenario.yaml_reader import write_yaml

    rows = [("case", "patient", "shape", "spacing / mm", "voxels of each label value")]
    for case in facts:
        counts = "no label" if case.voxels is None else " ".join(f"{value}:{count}" for value, count in sorted(case.voxels.items()))
        spacing = " x ".join(f"{mm:.4g}" for mm in case.spacing_mm)
        rows.append((case.case_id, case.patient_id, " x ".join(map(str, case.shape)), spacing, counts))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        typer.echo("  ".join([*(text.ljust(width) for text, width in zip(row[:4], widths, strict=True)), row[4]]).rstrip())
    patients = len({case.patient_id for case in facts})
    typer.echo(
        f"\n{len(facts)} cases of {patients} patients can be read; {len(problems) or 'no'} problem{'s' * (len(problems) != 1)}"
    )
    typer.echo("\n# For a scenario in this folder; name the classes, and see patient_pattern where a patient has several cases.")
    typer.echo(write_yaml({"classes": list(classes), "source": block}).rstrip())
    for told in (*problems, *(f"note: {note}" for note in notes)):
        typer.echo(told, err=True)
