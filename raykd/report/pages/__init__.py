"""The pages of a report, one file each.

A page is a module with `KEY` (its place in the contents), `TITLE`, `NEEDS` (what runs must have for it, after "needs") and
`page(material) -> list[Block]`, which is empty where the runs cannot fill it. To add one, write the file and name it in `PAGES`.
"""

from __future__ import annotations

from typing import Protocol

from raykd.report.blocks import Absent, Block, Page
from raykd.report.material import Material
from raykd.report.pages import (
    ablation,
    calibration,
    communication,
    conditions,
    curves,
    economics,
    events,
    failures,
    fairness,
    federation,
    gaps,
    labels,
    leaks,
    methods,
    provenance,
    slices,
    structures,
    teacher,
    time,
    transfers,
    views,
)


class PageModule(Protocol):
    """What a module of this folder has."""

    KEY: str
    TITLE: str
    NEEDS: str

    @staticmethod
    def page(material: Material) -> list[Block]:
        """The page's blocks; empty where the runs cannot fill it."""


PAGES: tuple[PageModule, ...] = (  # type: ignore[assignment]
    federation,
    views,
    methods,
    labels,
    economics,
    communication,
    time,
    transfers,
    leaks,
    structures,
    gaps,
    fairness,
    ablation,
    teacher,
    conditions,
    calibration,
    failures,
    slices,
    curves,
    events,
    provenance,
)
"""In the order in which they are read."""


def pages_of(material: Material) -> tuple[list[Page], list[Absent]]:
    """The pages that the runs fill, and those that they do not."""
    pages, absent = [], []
    for module in PAGES:
        try:
            blocks, needs = module.page(material), module.NEEDS
        except Exception as error:  # one page that fails must not cost a reader all others
            blocks, needs = (
                [],
                f"tables that raykd can read: it stopped at {type(error).__name__} ({error}), which is a fault to report",
            )
        if blocks:
            pages.append(Page(module.KEY, module.TITLE, tuple(blocks)))
        else:
            absent.append(Absent(module.TITLE, needs))
    return pages, absent
