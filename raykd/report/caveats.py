"""How far to trust the first screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raykd.report.compared import intervals_are
from raykd.report.contenders import Contenders
from raykd.report.material import Material
from raykd.report.work import unequal_work
from raykd.results.sites import named_shortly
from raykd.results.statistics import FEW_CLIENTS, PATIENT


def caveats(material: Material, found: Contenders) -> Iterator[str]:
    """Sentences beneath the answer."""
    evidence, ranking, best = material.evidence, material.rankings["dsc"], found.best
    yield f"In brackets: {intervals_are(score.num_seeds for score in ranking)}"
    if len(best.per_client) <= FEW_CLIENTS:
        yield "Intervals are about these very sites."
    else:
        yield "Intervals are about sites like these: sites are taken for a draw, with their scans."
    sources: Sequence[dict[str, dict[str, object]]] = [
        evidence.scenario.get("repository") or {}, *(evidence.scenario.get("clients") or [])
    ]  # fmt: skip
    if any((block.get("source") or {}).get("name") == "phantom" for block in sources):
        yield "The images are simulated phantoms: the ranking of methods may carry over to real scans, the numbers do not."
    if unlike := [label for label in found.rivals if _scans(material, label) != _scans(material, best.method)]:
        names = named_shortly(unlike)
        yield f"Means over other sites, trainings or test scans than that of {best.method}: {names}. Differences are over the same."
    yield from unequal_work(material, best.method, found.yardsticks)
    if len(ranking) > 2:
        yield "The best method was picked on the scans it is judged on, which flatters it where methods are close."


def _scans(material: Material, label: str) -> set[tuple[object, ...]]:
    """Training, site and patient of every score of a method."""
    scores = material.scores["dsc"]
    return set(scores.loc[scores["method"] == label, ["seed", *PATIENT]].itertuples(index=False, name=None))
