"""Which method stands for the federation, and what it is held against: sites alone, plain averaging, pooled data, the runner-up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from raykd.report.material import Material
from raykd.results.statistics import Score

ALONE, PLAIN, WARM, UNADAPTED = "local", "fedavg", "finetune", "teacher_only"
"""The names of the methods that are yardsticks, whatever a study calls them."""
COLD_ALONE, WARM_ALONE = "sites alone on their own labels", "local, warm student from the repository"
MEANINGS = {
    (ALONE, False): COLD_ALONE,
    (ALONE, True): WARM_ALONE,
    (PLAIN, False): "plain federated averaging",
    (WARM, True): "federated averaging, warm student from the repository",
    (UNADAPTED, False): "the teacher as it is",
}
"""A method's name in scenarios and whether it starts from a model of the repository, to what it stands for."""


@dataclass(frozen=True)
class Contenders:
    """The method that does best and those that it is held against.

    Attributes:
        method: the best that is federated: it pools no data and leaves no site alone, unless that is all that was run.
        condition: where it does best, of those under which most methods were run; "" where conditions do not differ.
        best: its score there.
        labels: condition to its label.
        alone: what sites training alone used (see `MEANINGS`), cold before warm, to the label by condition, the best of its kind.
        rivals: labels of the other methods under `condition`, those that pool data left out.
        yardsticks: label to what it stands for.
        federated: labels of the methods that `method` was picked from.
        is_best: whether no rival does better, sites alone among them.
    """

    method: str
    condition: str
    best: Score
    labels: dict[str, str]
    alone: dict[str, dict[str, str]]
    rivals: tuple[str, ...]
    yardsticks: dict[str, str]
    federated: tuple[str, ...]
    is_best: bool


def contenders(material: Material) -> Contenders | None:
    """None where no test case was evaluated."""
    scored = {score.method: score for score in material.rankings["dsc"]}
    if not scored:
        return None
    fair = [label for label in scored if label not in material.evidence.pooling_methods] or list(scored)
    federated = [label for label in fair if material.name_of(label) != ALONE] or fair
    method = _best_method(material, scored, federated)
    labels = {material.condition(label): label for label in fair if material.method(label) == method}
    shared = _shared_conditions(material, fair) & labels.keys() or labels.keys()
    best = next(scored[label] for label in fair if label in labels.values() and material.condition(label) in shared)
    condition = material.condition(best.method)
    alone: dict[str, dict[str, str]] = {}
    for label in sorted(fair, key=lambda label: material.starts_warm(label)):
        if material.name_of(label) == ALONE and material.method(label) != method and material.condition(label) in labels:
            alone.setdefault(_meaning(material, label), {}).setdefault(material.condition(label), label)
    rivals = tuple(label for label in fair if material.condition(label) == condition and label != best.method)
    return Contenders(
        method, condition, best, labels, alone, rivals, _yardsticks(material, condition, best, list(scored)),
        federated=tuple(federated),
        is_best=all(scored[label].macro.value <= best.macro.value for label in rivals),
    )  # fmt: skip


def _shared_conditions(material: Material, labels: list[str]) -> set[str]:
    """The conditions under which most methods were run."""
    nums = Counter(material.condition(label) for label in labels)
    return {condition for condition, num in nums.items() if num == max(nums.values())}


def _best_method(material: Material, scored: dict[str, Score], fair: list[str]) -> str:
    """The method with the highest mean over the conditions that most methods share."""
    by_condition: dict[str, dict[str, float]] = {}
    for label in fair:
        by_condition.setdefault(material.condition(label), {})[material.method(label)] = scored[label].macro.value
    most = max(len(methods) for methods in by_condition.values())
    full = [methods for methods in by_condition.values() if len(methods) == most]
    names = dict.fromkeys(name for methods in full for name in methods)
    return max(names, key=lambda name: float(np.mean([methods.get(name, -np.inf) for methods in full])))


def _yardsticks(material: Material, condition: str, best: Score, scored: list[str]) -> dict[str, str]:
    """What each of the other methods under a condition stands for, the best of its kind first."""
    others = [label for label in scored if label != best.method and material.condition(label) == condition]
    found: dict[str, str] = {}
    for meaning in MEANINGS.values():
        label = next((label for label in others if _meaning(material, label) == meaning), None)
        if label:
            found[label] = meaning + _size_beside(material, label, best.method)
    pooled = "all sites' scans pooled in one place, which a federation is there to avoid"
    found |= {label: pooled for label in others if label in material.evidence.pooling_methods}
    if others and others[0] not in found:
        found[others[0]] = "the runner-up"
    return found


def not_compared(material: Material, found: Contenders) -> list[str]:
    """The controls that need nothing beyond what the best method had, and that were not run where it does best."""
    best = found.best.method
    has_teacher = material.has_teacher(best)
    controls = {
        COLD_ALONE: True,
        WARM_ALONE: has_teacher or material.starts_warm(best),
        MEANINGS[PLAIN, False]: True,
        MEANINGS[WARM, True]: has_teacher or material.starts_warm(best),
        MEANINGS[UNADAPTED, False]: has_teacher,
    }
    run = {_meaning(material, label) for label in material.labels if material.condition(label) == found.condition}
    return [meaning for meaning, is_fair in controls.items() if is_fair and meaning not in run]


def _meaning(material: Material, label: str) -> str:
    """What a method stands for, by what it used; "" for one that is no yardstick."""
    return MEANINGS.get((material.name_of(label), material.starts_warm(label)), "")


def _size_beside(material: Material, label: str, best: str) -> str:
    """How much larger or smaller a method's networks are than those of the best, where they differ."""
    times = material.num_params(label) / material.num_params(best)
    return "" if np.isnan(times) or abs(times - 1) < 0.01 else f", networks of {times:.2g} times the parameters"


def references(material: Material) -> tuple[str, list[str]]:
    """The best method, and the methods that pages hold it against: sites alone and plain averaging, else the runner-up."""
    found = contenders(material)
    if found is None:
        return "", []
    alone = list(dict.fromkeys(material.method(label) for labels in found.alone.values() for label in labels.values()))
    plain = [material.method(label) for label in material.labels if material.name_of(label) == PLAIN]
    others = [method for method in dict.fromkeys([*alone, *plain]) if method != found.method]
    rivals = [method for method in material.methods if method != found.method]
    return found.method, others or rivals[:1]


def full_method(material: Material) -> str:
    """The method with all parts: of several that are one method with unlike settings the one that was run first, else the best;
    "" where there is none."""
    methods = material.comparison.methods
    names = {material.method(label): material.name_of(label) for label in material.labels}
    several = [method for method in methods if sum(name == names.get(method) for name in names.values()) > 1]
    best = references(material)[0]
    taught = [method for method in several if names[method] not in (ALONE, PLAIN, WARM)]
    return taught[0] if taught else best


def taught_and_untaught(material: Material) -> tuple[str, str]:
    """The best method of which sites have a teacher, and the nearest to it of those without: fine-tuned before averaged before
    alone; "" where there is none."""
    cases = material.evidence.tables["cases"]
    is_teacher = (cases["model"] == "teacher") & (cases["client_id"] >= 0)
    taught_labels = set(cases.loc[is_teacher, "method"])
    taught = {material.method(label) for label in taught_labels}
    learning = [m for label in material.labels if label in taught_labels and material.name_of(label) != "teacher_only"
                for m in [material.method(label)]]  # fmt: skip
    names = {material.method(label): material.name_of(label) for label in material.labels}
    untaught = [method for name in (WARM, PLAIN, ALONE) for method in material.methods if names[method] == name]
    return next(iter(learning), ""), next((method for method in untaught if method not in taught), "")
