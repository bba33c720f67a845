"""The first screen: what the runs say to somebody who has to decide, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from raykd.report.costs import Cost
from raykd.report.evidence import Evidence
from raykd.report.wording import data_size, duration, interval, number, plural, probability
from raykd.results.statistics import FEW_CLIENTS, Difference, Score, paired_difference, resampling_rng

YARDSTICKS = {"local": "every site training alone on its own labels", "fedavg": "plain federated averaging"}
"""What deciders ask a method to be compared with."""
FEW_CASES = 10


@dataclass(frozen=True)
class Answer:
    """The first screen.

    Attributes:
        lead: the sentence in large type.
        sentences: what follows it.
        caveats: how far to trust it.
    """

    lead: Markup
    sentences: tuple[Markup, ...]
    caveats: tuple[str, ...]


def answer(evidence: Evidence, ranking: Sequence[Score], scores: pd.DataFrame, costs: Mapping[str, Cost]) -> Answer:
    """The answer.

    Args:
        evidence: all runs.
        ranking: the methods by DSC, best first; may be empty.
        scores: the DSC of each case, from `case_scores`.
        costs: by method.
    """
    if not ranking:
        lead = Markup("These runs hold no evaluated test case yet, so there is no answer.")
        return Answer(lead, tuple(_cost_sentences(costs[evidence.methods[0]])), ())
    federated = [score for score in ranking if score.method not in evidence.pooling_methods] or list(ranking)
    best = federated[0]
    sentences = [
        Markup("Its weakest site is <strong>{}</strong> with {}.").format(evidence.name(best.worst_client), interval(best.worst)),
        *_comparisons(best, ranking, evidence.pooling_methods, scores),
        *_cost_sentences(costs[best.method]),
    ]
    return Answer(_lead(federated), tuple(sentences), tuple(_caveats(evidence, federated)))


def _lead(ranking: Sequence[Score]) -> Markup:
    best = ranking[0]
    claim = f"is the best of {len(ranking)} methods, with" if len(ranking) > 1 else "reaches"
    return Markup(
        "<strong>{method}</strong> {claim} a mean Dice score of <strong>{value}</strong> over {sites}, "
        "judged on {cases} that no model was trained on."
    ).format(
        method=best.method,
        claim=claim,
        value=interval(best.macro),
        sites=plural(len(best.per_client), "site"),
        cases=plural(best.num_patients, "test scan"),
    )


def _comparisons(best: Score, ranking: Sequence[Score], pooling: Collection[str], scores: pd.DataFrame) -> Iterator[Markup]:
    others = [score.method for score in ranking if score.method != best.method]
    if not others:
        yield Markup("No other method was run, so whether it is worth its cost is still open.")
        return
    if base_name(best.method) == "local":
        yield Markup("No federated method did better than every site training alone.")
    words = {method: YARDSTICKS[name] for name in YARDSTICKS for method in others if base_name(method) == name}
    words |= {
        method: "all sites' scans pooled in one place, which a federation is there to avoid"
        for method in others
        if method in pooling
    }
    if others[0] not in words:
        words[others[0]] = "the runner-up"
    for method, meaning in words.items():
        yield _comparison(method, meaning, compare(scores, best.method, method))


def base_name(label: str) -> str:
    """The method's own name, without the settings in which runs differ."""
    return label.split(",")[0]


def compare(scores: pd.DataFrame, method: str, other: str) -> Difference:
    """The first method minus the other, by case."""
    return paired_difference(scores[scores["method"] == method], scores[scores["method"] == other], resampling_rng())


def _comparison(method: str, words: str, difference: Difference) -> Markup:
    if difference.num_patients == 0:
        return Markup("It shares no test scan with <strong>{}</strong>, so the two cannot be compared.").format(method)
    macro = difference.macro
    if np.isnan(macro.low):
        verdict = "; whether that is chance stays open, because a site has a single test scan"
    else:
        verdict = "; that may be chance" if macro.low <= 0 <= macro.high else ""
    evidence = f"{plural(difference.num_patients, 'scan')}, {probability(difference.p_value)}"
    return Markup("Against <strong>{}</strong> ({}) it {} <strong>{}</strong>{} on {}{}.").format(
        method,
        words,
        "gains" if macro.value >= 0 else "loses",
        number(abs(macro.value)),
        _bounds(difference),
        evidence,
        verdict,
    )


def _bounds(difference: Difference) -> str:
    low, high = difference.macro.low, difference.macro.high
    if difference.macro.value < 0:
        low, high = -high, -low
    return "" if np.isnan(low) else f" ({number(low)} to {number(high)})"


def _cost_sentences(cost: Cost) -> Iterator[Markup]:
    rounds = f"In {plural(cost.num_rounds, 'round')}" if cost.num_rounds else "Without any round,"
    if cost.total:
        yield Markup("{} a site received {} and sent {}; all sites together moved <strong>{}</strong>.").format(
            rounds, data_size(cost.bytes_down), data_size(cost.bytes_up), data_size(cost.total)
        )
    else:
        yield Markup("Nothing travelled between sites and server.")
    if not np.isnan(cost.wall_s):
        tail = (
            ""
            if np.isnan(cost.simulated_s)
            else f"; on the sites' own lines and machines it would take about {duration(cost.simulated_s)}"
        )
        yield Markup("Simulating its rounds took <strong>{}</strong>{}.").format(duration(cost.wall_s), tail)


def _caveats(evidence: Evidence, ranking: Sequence[Score]) -> Iterator[str]:
    if len(ranking[0].per_client) <= FEW_CLIENTS:
        yield "Brackets hold 95% intervals: scans are drawn anew within these very sites (bootstrap), after averaging over seeds."
    else:
        yield "Brackets hold 95% intervals: sites, then their scans, are drawn anew (bootstrap), after averaging over seeds."
    sources = [evidence.scenario.get("repository") or {}, *(evidence.scenario.get("clients") or [])]
    if any((block.get("source") or {}).get("name") == "phantom" for block in sources):
        yield "The images are simulated phantoms: the ranking of methods may carry over to real scans, the numbers do not."
    seeds = evidence.deployed["seed"].nunique()
    if seeds == 1:
        yield "One seed was run, so the intervals leave out how much training itself varies."
    if ranking[0].num_patients < FEW_CASES * len(ranking[0].per_client):
        yield f"With fewer than {FEW_CASES} test scans a site, the true intervals are somewhat wider than the printed ones."
    if len(ranking) > 2:
        yield "The best method was picked on the scans it is judged on, which flatters it where methods are close."
