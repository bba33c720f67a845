"""The first screen: is it worth it, for whom and at what cost, in sentences with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from raykd.report.contenders import Contenders, contenders
from raykd.report.costs import Cost
from raykd.report.material import Material
from raykd.report.wording import data_size, duration, interval, plural, probability, signed
from raykd.results.statistics import FEW_CLIENTS, Difference, Estimate, Score, paired_difference, resampling_rng, verdict

ALONE = "every site training alone on its own labels"
FEW_CASES = 10
FEW_SITES = 6
"""Sites told one by one; of more, how many gain and lose."""


@dataclass(frozen=True)
class Question:
    """A question of whoever decides, and the sentences that answer it."""

    title: str
    sentences: tuple[Markup, ...]


@dataclass(frozen=True)
class Answer:
    """The first screen.

    Attributes:
        lead: the sentence in large type.
        questions: what follows it.
        caveats: how far to trust it.
    """

    lead: Markup
    questions: tuple[Question, ...]
    caveats: tuple[str, ...]


def answer(material: Material) -> Answer:
    """The answer of the runs."""
    found = contenders(material)
    if found is None:
        lead = Markup("These runs hold no evaluated test case yet, so there is no answer.")
        cost = tuple(_cost_sentences(material.costs[material.labels[0]]))
        return Answer(lead, (Question("What it has cost so far", cost),), ())
    questions = (
        Question("Is it worth it?", tuple(_worth(material, found))),
        Question("For whom?", tuple(_for_whom(material, found))),
        Question("At what cost?", tuple(_cost_sentences(material.costs[found.best.method]))),
    )
    return Answer(_lead(material, found), questions, tuple(_caveats(material, found.best)))


def compare(scores: pd.DataFrame, method: str, other: str) -> Difference:
    """The first method minus the other, by case."""
    return paired_difference(scores[scores["method"] == method], scores[scores["method"] == other], resampling_rng())


def _lead(material: Material, found: Contenders) -> Markup:
    scores, best = material.scores["dsc"], found.best
    if not found.alone:
        words = Markup("{best} Whether a federation is worth it stays <strong>open</strong>: no run to compare has {alone}.")
        return words.format(alone=ALONE, best=_best_sentence(material, found))
    if len(found.alone) > 1:
        return _lead_over_conditions(material, found)
    (label, other) = next((found.labels[condition], alone) for condition, alone in found.alone.items())
    macro = compare(scores, label, other).macro
    said = {"better": "Yes", "worse": "No"}.get(verdict(macro, 0.0), "Open")
    chance = ", which may be chance" if said == "Open" else ""
    words = Markup(
        "<strong>{said}</strong>: <strong>{method}</strong> {gains} <strong>{by}</strong> of Dice against {alone}{chance}. {best}"
    )
    return words.format(
        said=said, method=best.method, gains=_gains(macro), by=_size(macro), alone=ALONE, chance=chance,
        best=_best_sentence(material, found),
    )  # fmt: skip


def _lead_over_conditions(material: Material, found: Contenders) -> Markup:
    """In how many conditions it gains and loses, and from the least gain to the most."""
    scores = material.scores["dsc"]
    macros = [compare(scores, found.labels[condition], alone).macro for condition, alone in found.alone.items()]
    macros = sorted((macro for macro in macros if not np.isnan(macro.value)), key=lambda macro: macro.value)
    if not macros:
        return _best_sentence(material, found)
    said = [verdict(macro, 0.0) for macro in macros]
    num_better, num_worse = said.count("better"), said.count("worse")
    num_open = len(said) - num_better - num_worse
    others = [f"loses under {num_worse}"] * bool(num_worse) + [f"under {num_open} the difference may be chance"] * bool(num_open)
    return Markup(
        "<strong>{word}</strong>: against {alone}, <strong>{method}</strong> gains under "
        "<strong>{better} of {conditions}</strong>{others}, from <strong>{least}</strong> to <strong>{most}</strong> of Dice."
    ).format(
        word="Yes" if num_better == len(said) else "Sometimes" if num_better else "Open" if num_open else "No",
        alone=ALONE,
        method=found.method,
        better=num_better,
        conditions=plural(len(said), "condition"),
        others="".join(f", {words}" for words in others),
        least=_signed(macros[0]),
        most=_signed(macros[-1]),
    )


def _best_sentence(material: Material, found: Contenders) -> Markup:
    best, num = found.best, len(found.rivals) + 1 if found.is_best else found.num_federated
    claim = f"is the best of {num} {'' if found.is_best else 'federated '}methods, with" if num > 1 else "reaches"
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


def _worth(material: Material, found: Contenders) -> Iterator[Markup]:
    scores = material.scores["dsc"]
    if len(found.alone) > 1:
        yield _best_sentence(material, found)
        for condition, alone in found.alone.items():
            yield Markup("{}: {}").format(condition, _comparison(alone, ALONE, compare(scores, found.labels[condition], alone)))
        return
    if not found.yardsticks:
        yield Markup("No other method was run, so whether it is worth its cost is still open.")
    for label, meaning in found.yardsticks.items():
        yield _comparison(label, meaning, compare(scores, found.best.method, label))


def _comparison(label: str, words: str, difference: Difference) -> Markup:
    if difference.num_patients == 0:
        return Markup("It shares no test scan with <strong>{}</strong>, so the two cannot be compared.").format(label)
    macro = difference.macro
    if np.isnan(macro.low):
        verdict_ = "; whether that is chance stays open, because a site has a single test scan"
    else:
        verdict_ = "; that may be chance" if macro.low <= 0 <= macro.high else ""
    evidence = f"{plural(difference.num_patients, 'scan')}, {probability(difference.p_value)}"
    return Markup("Against <strong>{}</strong> ({}) it {} <strong>{}</strong> on {}{}.").format(
        label, words, _gains(macro), _size(macro), evidence, verdict_
    )


def _gains(macro: Estimate) -> str:
    return "gains" if macro.value >= 0 else "loses"


def _size(macro: Estimate) -> str:
    """How large a gain or loss is."""
    low, high = (-macro.high, -macro.low) if macro.value < 0 else (macro.low, macro.high)
    return interval(Estimate(abs(macro.value), low, high))


def _for_whom(material: Material, found: Contenders) -> Iterator[Markup]:
    evidence, best = material.evidence, found.best
    yield Markup("Its weakest site is <strong>{}</strong> with {}.").format(evidence.name(best.worst_client), interval(best.worst))
    alone = found.alone.get(found.condition)
    if alone is None:
        return
    scores = material.scores["dsc"]
    gains = {
        client_id: compare(scores[scores["client_id"] == client_id], best.method, alone).macro for client_id in best.per_client
    }
    said = {client_id: verdict(macro, 0.0) for client_id, macro in gains.items()}
    counts = {word: [client_id for client_id, is_ in said.items() if is_ == word] for word in ("better", "worse")}
    num_better, num_worse = len(counts["better"]), len(counts["worse"])
    yield Markup("Beside {}, <strong>{} of {}</strong> {} better off, {} worse, {} open.").format(
        alone,
        num_better,
        plural(len(gains), "site"),
        "is" if num_better == 1 else "are",
        num_worse,
        len(gains) - num_better - num_worse,
    )
    told = sorted(gains, key=lambda client_id: -gains[client_id].value)
    told = told if len(told) <= FEW_SITES else [told[0], told[-1]]
    yield Markup("{}{}.").format("" if len(gains) <= FEW_SITES else "From the most to the least: ", Markup("; ").join(
        Markup("<strong>{}</strong> {}").format(evidence.name(client_id), _signed(gains[client_id])) for client_id in told
    ))  # fmt: skip


def _signed(macro: Estimate) -> str:
    bounds = "" if np.isnan(macro.low) else f" ({signed(macro.low)} to {signed(macro.high)})"
    return signed(macro.value) + bounds


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


def _caveats(material: Material, best: Score) -> Iterator[str]:
    evidence, ranking = material.evidence, material.rankings["dsc"]
    if len(best.per_client) <= FEW_CLIENTS:
        yield "Brackets hold 95% intervals: scans are drawn anew within these very sites (bootstrap), after averaging over seeds."
    else:
        yield "Brackets hold 95% intervals: sites, then their scans, are drawn anew (bootstrap), after averaging over seeds."
    sources: Sequence[dict[str, dict[str, object]]] = [
        evidence.scenario.get("repository") or {}, *(evidence.scenario.get("clients") or [])
    ]  # fmt: skip
    if any((block.get("source") or {}).get("name") == "phantom" for block in sources):
        yield "The images are simulated phantoms: the ranking of methods may carry over to real scans, the numbers do not."
    if evidence.deployed["seed"].nunique() == 1:
        yield "One seed was run, so the intervals leave out how much training itself varies."
    if best.num_patients < FEW_CASES * len(best.per_client):
        yield f"With fewer than {FEW_CASES} test scans a site, the true intervals are somewhat wider than the printed ones."
    if len(ranking) > 2:
        yield "The best method was picked on the scans it is judged on, which flatters it where methods are close."
