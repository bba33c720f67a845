"""The runs that a study asks for, and those of them that are left: what `raykd study` and `raykd.run_study` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raykd.commands.options import plan_study
from raykd.commands.study_record import RECORD, placed, refuse_other_study, states_of, taken_up
from raykd.launch import Plan, check_plans, refuse_taken
from raykd.scenario.errors import RaykdError
from raykd.scenario.study import Study
from raykd.staging import outline
from raykd.storage import url_of


@dataclass(frozen=True)
class StudyPlan:
    """A study whose runs were checked.

    Attributes:
        study: its cells.
        folder: of the study, a path or a URL.
        states: of every cell by its id, as `states_of` gives them.
        plans: a run for each cell.
    """

    study: Study
    folder: Path
    states: Mapping[str, str]
    plans: Sequence[Plan]

    @property
    def place(self) -> str:
        """The study's directory as the user calls it."""
        return url_of(self.folder) or str(self.folder)

    @property
    def left(self) -> list[Plan]:
        """The runs that are not done."""
        return [plan for plan in self.plans if self.states[plan.run_dir.name] != "done"]

    def claimed(self) -> list[Plan]:
        """The runs that are not done, each ready to begin or to go on.

        Raises:
            RaykdError: somebody else writes one, or it cannot be gone on with.
        """
        url, states = url_of(self.folder), self.states
        if url:
            return [placed(plan, url, states[plan.run_dir.name]) for plan in self.left]
        return [taken_up(plan) if states[plan.run_dir.name] == "unfinished" else plan for plan in self.left]


def prepare_study(
    path: Path, overrides: Sequence[str], out: Path | None, how_to_go_on: Callable[[str], str], *, is_continued: bool
) -> StudyPlan:
    """Reads a study, refuses what cannot run, and says what is left of it.

    Args:
        path, overrides: the study's file, and what is set in it.
        out: the study's directory or URL; None: a new one under runs/.
        how_to_go_on: what to do to go on with the study in a place, for refusals.
        is_continued: whether what is in `out` is gone on with; otherwise it must be empty or absent.

    Raises:
        RaykdError: with everything that is wrong.
    """
    study, plans, folder = plan_study(path, list(overrides), out)
    url = url_of(folder)
    place, seen = url or str(folder), outline(url) if url else folder
    if not is_continued and (seen / RECORD).exists():
        raise RaykdError(f"{place}: holds a study already; give another directory with --out, or go on: {how_to_go_on(place)}")
    if is_continued:
        _refuse_other_study(study, seen, place)
    elif not url:
        refuse_taken(plans)
    states = states_of(study, seen)
    check_plans(plans)
    return StudyPlan(study, folder, states, plans)


def _refuse_other_study(study: Study, seen: Path, place: str) -> None:
    """Refuses a directory that holds a study that differs.

    Args:
        seen: what is there, on this machine.
        place: what the user calls it.
    """
    try:
        refuse_other_study(study, seen)
    except RaykdError as error:
        raise RaykdError(str(error).replace(str(seen), place)) from None
