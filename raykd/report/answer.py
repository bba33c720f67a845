"""The first screen: is it worth it, for whom and at what cost, in sentences with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from raykd.report.caveats import caveats
from raykd.report.compared import (
    UNKNOWN_LUCK,
    Compared,
    compare,
    compare_pairs,
    compared,
    evidence_of,
    gains,
    size,
)
from raykd.report.contenders import ALONE, COLD_ALONE, Contenders, contenders, not_compared
from raykd.report.costs import Cost
from raykd.report.evidence import REPOSITORY
from raykd.report.material import Material
from raykd.report.wording import data_size, duration, interval, plural, signed_interval
from raykd.results.statistics import BETTER, NO_VERDICT, OPEN, WORSE, Score

WORDS = {BETTER: "Yes", WORSE: "No"}
NO_DIFFERENCE = 1e-12
"""Between means: what is below it is rounding."""
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
        lead = Markup(
            "These runs hold no evaluated test case yet, so there is no answer."
            if material.evidence.deployed.empty
            else "No class occurs in the reference of any test case, so no case has a score and there is no answer."
        )
        cost = tuple(_cost_sentences(material.costs[material.labels[0]]))
        return Answer(lead, (Question("What it has cost so far", cost),), ())
    questions = (
        Question("Is it worth it?", tuple(_worth(material, found))),
        Question("For whom?", tuple(_for_whom(material, found))),
        Question("At what cost?", (*_cost_sentences(material.costs[found.best.method]), *_repository_sentences(material, found))),
    )
    return Answer(_lead(material, found), questions, tuple(caveats(material, found)))


def _lead(material: Material, found: Contenders) -> Markup:
    best = _best_sentence(material, found)
    if missing := not_compared(material, found):
        best += Markup(" Not compared: {}.").format("; ".join(missing))
    if not found.alone:
        is_alone = material.name_of(found.best.method) == ALONE
        lacking = "no federated method was run" if is_alone else f"no run to compare has {COLD_ALONE}"
        words = Markup("{best} Whether a federation is worth it stays <strong>open</strong>: {lacking}.")
        return words.format(best=best, lacking=lacking)
    several = _is_over_conditions(found)
    clause, judged = (_clause_over_conditions, _by_condition(material, found)) if several else (_clause, _beside(material, found))
    clauses = [clause(material, found, meaning, judged) for meaning in found.alone]
    return Markup(" ").join([*(clause for clause in clauses if clause), *([] if several else [best])]) or best


def _is_over_conditions(found: Contenders) -> bool:
    """Whether sites alone were run under several conditions."""
    return any(len(labels) > 1 for labels in found.alone.values())


def _beside(material: Material, found: Contenders) -> dict[tuple[str, str], Compared]:
    """Every federated method of the best one's condition against every yardstick: the family that the best one was picked from."""
    federated = [label for label in found.federated if material.condition(label) == found.condition] or [found.best.method]
    pairs = [(method, yardstick) for yardstick in found.yardsticks for method in federated]
    pairs += [(found.labels[condition], alone) for labels in found.alone.values() for condition, alone in labels.items()]
    return compare_pairs(material.scores["dsc"], pairs, "DSC, federated methods against yardsticks")


def _by_condition(material: Material, found: Contenders) -> dict[tuple[str, str], Compared]:
    """Every federated method against sites alone, condition by condition: the family that the best one was picked from."""
    pairs = [
        (label, labels[material.condition(label)])
        for labels in found.alone.values()
        for label in found.federated
        if material.condition(label) in labels
    ]
    return compare_pairs(material.scores["dsc"], pairs, "DSC, federated methods against sites alone")


def _clause(material: Material, found: Contenders, meaning: str, judged: dict[tuple[str, str], Compared]) -> Markup:
    """What one difference says: Yes, No or Open, or with one training what it was there."""
    ((condition, alone),) = found.alone[meaning].items()
    label = found.labels[condition]
    one = judged[label, alone]
    if one.difference.num_patients == 0:
        return Markup("<strong>Open</strong>: {} shares no test scan of a seed with {}.").format(label, meaning)
    if one.verdict == NO_VERDICT:
        seed, first = _common_seed(material, label, alone), next(iter(found.alone))
        is_told = meaning != first and seed == _common_seed(material, label, *found.alone[first].values())
        start = Markup("In the same training " if is_told else "<strong>One training</strong> (seed {}): ").format(seed)
        scans = plural(one.difference.num_patients, "test scan")
        end = Markup("." if is_told else " over its {}; {}.").format(scans, UNKNOWN_LUCK)
    else:
        start = Markup("<strong>{}</strong>: ").format(WORDS.get(one.verdict, "Open"))
        end = Markup(" ({}).").format(evidence_of(one))
    macro = one.difference.macro
    words = Markup("<strong>{method}</strong> {gains} <strong>{size}</strong> of Dice against {meaning}")
    return start + words.format(method=label, gains=gains(macro), size=size(macro), meaning=meaning) + end


def _common_seed(material: Material, *labels: str) -> str:
    scores = material.scores["dsc"]
    seeds = [set(scores.loc[scores["method"] == label, "seed"]) for label in labels]
    return ", ".join(str(seed) for seed in sorted(set.intersection(*seeds)))


def _clause_over_conditions(
    material: Material, found: Contenders, meaning: str, judged: dict[tuple[str, str], Compared]
) -> Markup | None:
    """In how many conditions it gains and loses, and from the least gain to the most."""
    all_ = [judged[found.labels[condition], alone] for condition, alone in found.alone[meaning].items()]
    told = sorted((one for one in all_ if one.difference.num_patients), key=lambda one: one.difference.macro.value)
    if not told:
        return None
    verdicts = [one.verdict for one in told]
    num = {word: verdicts.count(word) for word in (BETTER, WORSE, OPEN, NO_VERDICT)}
    span = Markup("from <strong>{}</strong> to <strong>{}</strong> of Dice").format(
        signed_interval(told[0].difference.macro), signed_interval(told[-1].difference.macro)
    )
    conditions = plural(len(verdicts), "condition")
    if num[NO_VERDICT] == len(verdicts):
        return Markup("<strong>One training</strong> each: <strong>{}</strong> minus {} is {}, under {}; {}.").format(
            found.method, meaning, span, conditions, UNKNOWN_LUCK
        )
    others = [f"loses under {num[WORSE]}"] * bool(num[WORSE]) + [f"open under {num[OPEN]}"] * bool(num[OPEN])
    others += [f"one training and no verdict under {num[NO_VERDICT]}"] * bool(num[NO_VERDICT])
    return Markup(
        "<strong>{word}</strong>: against {meaning}, <strong>{method}</strong> gains under "
        "<strong>{better} of {conditions}</strong>{others}, {span}."
    ).format(
        word=_word_over_conditions(num, len(verdicts)),
        meaning=meaning, method=found.method, better=num[BETTER], conditions=conditions,
        others="".join(f", {words}" for words in others), span=span,
    )  # fmt: skip


def _word_over_conditions(num: dict[str, int], num_conditions: int) -> str:
    if num[BETTER] == num_conditions:
        return "Yes"
    if num[BETTER]:
        return "Sometimes"
    return "No" if num[WORSE] == num_conditions else "Open"


def _best_sentence(material: Material, found: Contenders) -> Markup:
    best = found.best
    num_federated = sum(material.condition(label) == found.condition for label in found.federated)
    num = len(found.rivals) + 1 if found.is_best else num_federated
    has = "shares" if any(_is_as_good(material, best, label) for label in found.rivals) else "has"
    claim = f"{has} the highest mean of {num} {'' if found.is_best else 'federated '}methods:" if num > 1 else "reaches"
    used = material.used(best.method)
    return Markup(
        "<strong>{method}</strong>{used} {claim} a mean Dice score of <strong>{value}</strong> over {sites} and {trainings}, "
        "judged on {cases} that its training did not see."
    ).format(
        method=best.method,
        used=f" ({used})" if used else "",
        claim=claim,
        value=interval(best.macro),
        sites=plural(len(best.per_client), "site"),
        trainings=plural(best.num_seeds, "training"),
        cases=plural(best.num_patients, "test scan"),
    )


def _is_as_good(material: Material, best: Score, label: str) -> bool:
    values = {score.method: score.macro.value for score in material.rankings["dsc"]}
    return bool(np.isclose(values[label], best.macro.value, rtol=0, atol=NO_DIFFERENCE))


def _worth(material: Material, found: Contenders) -> Iterator[Markup]:
    if _is_over_conditions(found):
        yield _best_sentence(material, found)
        judged = _by_condition(material, found)
        for meaning, labels in found.alone.items():
            for condition, alone in labels.items():
                yield Markup("{}: {}").format(condition, _comparison(alone, meaning, judged[found.labels[condition], alone]))
        return
    if not found.yardsticks:
        yield Markup("No other method was run {}, so whether it is worth its cost is still open.").format(
            "under this condition" if len(material.conditions) > 1 else "beside it"
        )
        return
    judged = _beside(material, found)
    for label, meaning in found.yardsticks.items():
        yield _comparison(label, meaning, judged[found.best.method, label])
    one = next(iter(judged.values()))
    if any(not np.isnan(each.p_holm) for each in judged.values()):
        yield Markup("p-values are adjusted after Holm over {} ({}), because the best was picked from them.").format(
            one.family.rpartition(": ")[2], one.family.rpartition(": ")[0]
        )


def _comparison(label: str, words: str, found: Compared) -> Markup:
    if found.difference.num_patients == 0:
        return Markup("It shares no test scan of a seed with <strong>{}</strong>, so the two cannot be compared.").format(label)
    macro = found.difference.macro
    return Markup("Against <strong>{}</strong> ({}) it {} <strong>{}</strong> on {}.").format(
        label, words, gains(macro), size(macro), evidence_of(found)
    )


def _for_whom(material: Material, found: Contenders) -> Iterator[Markup]:
    evidence, best = material.evidence, found.best
    yield Markup("Its weakest site is <strong>{}</strong> with {}.").format(evidence.name(best.worst_client), interval(best.worst))
    for labels in found.alone.values():
        if found.condition in labels:
            yield from _by_site(material, best, labels[found.condition])


def _by_site(material: Material, best: Score, alone: str) -> Iterator[Markup]:
    """At how many sites it gains and loses, and by how much."""
    scores = material.scores["dsc"]
    by_site = {site: compare(scores[scores["client_id"] == site], best.method, alone) for site in best.per_client}
    found = {site: difference for site, difference in by_site.items() if difference.num_patients}
    if not found:
        return
    sites = dict(zip(found, compared(list(found.values()), "DSC, sites"), strict=True))
    verdicts = [one.verdict for one in sites.values()]
    num_better, num_worse = verdicts.count(BETTER), verdicts.count(WORSE)
    if NO_VERDICT in verdicts:
        yield Markup("Beside {}, site by site, in one training and without a verdict:").format(alone)
    else:
        words = Markup("Beside {}, <strong>{} of {}</strong> {} better off, {} worse, {} open, p-values adjusted over the sites.")
        is_are, num_open = "is" if num_better == 1 else "are", len(verdicts) - num_better - num_worse
        yield words.format(alone, num_better, plural(len(verdicts), "site"), is_are, num_worse, num_open)
    macros = {client_id: one.difference.macro for client_id, one in sites.items()}
    told = sorted(macros, key=lambda client_id: -macros[client_id].value)
    told = told if len(told) <= FEW_SITES else [told[0], told[-1]]
    yield Markup("{}{}.").format("" if len(macros) <= FEW_SITES else "From the most to the least: ", Markup("; ").join(
        Markup("<strong>{}</strong> {}").format(material.evidence.name(client_id), signed_interval(macros[client_id]))
        for client_id in told
    ))  # fmt: skip


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


def _repository_sentences(material: Material, found: Contenders) -> Iterator[Markup]:
    """What a method needs of the repository: outlined scans, and the time of a training there."""
    label = found.best.method
    if not material.used(label):
        return
    records, cost = material.evidence.tables["records"], material.costs[label]
    own = records[(records["method"] == label) & (records["client_id"] == REPOSITORY) & (records["split"] == "labelled")]
    num = own.groupby("run_id", observed=True)["case_id"].nunique()
    scans = f"{plural(int(num.iloc[0]), 'outlined scan')} there" if len(num) else "outlined scans there"
    took = "" if np.isnan(cost.teacher_s) else f", and {duration(cost.teacher_s)} of training on them before the rounds"
    yield Markup("For its {} it needs {}{}.").format(material.used(label), scans, took)
