"""Whether an uploaded model tells the cases that it was trained on from cases of the same site that were held back."""

from __future__ import annotations

import functools
from typing import Any

import torch

from raykd.data.case import Case
from raykd.data.heterogeneity.label_budget import limit_classes
from raykd.data.patches import batches, training_case
from raykd.federation.client import Client
from raykd.federation.session import AS_THEY_ARE
from raykd.leaks.evidence import Evidence
from raykd.leaks.inversion import Row, is_whole
from raykd.methods._base import supervised_loss
from raykd.models._base import SegmentationNetwork
from raykd.numerics.membership import (
    Measure,
    Scores,
    Variance,
    auc,
    auc_variance,
    interval,
    least_p,
    p_of_chance,
    pooled,
    rate_variance,
    true_positive_rate,
)
from raykd.numerics.params import Payload, load_state, select
from raykd.numerics.rng import generator, numpy_generator

NUM_BATCHES = 4
"""Of two patches, by which a case is judged."""
MIN_CASES = 3
"""Members and others that an interval needs at least, over all sites that it is of."""
FALSE_ALARMS = 0.025
"""Of verdicts where nothing leaks, at most."""
METRICS: dict[str, tuple[Measure, Variance, float, int]] = {
    "auc": (auc, auc_variance, 0.5, 1),
    "tpr_at_fpr_1pct": (functools.partial(true_positive_rate, false_positive_rate=0.01), rate_variance, 0.01, 100),
    "tpr_at_fpr_10pct": (functools.partial(true_positive_rate, false_positive_rate=0.1), rate_variance, 0.1, 10),
}
"""How success is measured, its variance, what chance reaches, and the held-out cases of a site that a verdict needs."""
KNOWS = {"membership_loss": "uploaded model", "membership_calibrated": "received and uploaded model"}


def membership_scores(evidence: Evidence) -> dict[str, Scores] | str:
    """By attack, scores of the labelled training cases and of the test cases; a sentence where the upload holds no whole model.

    `membership_loss` is the negative loss (Yeom et al., IEEE CSF 2018, https://arxiv.org/abs/1709.01604); `membership_calibrated`
    by how much the update lowered it, which takes off how hard a case is (Watson et al., ICLR 2022,
    https://arxiv.org/abs/2111.08440).
    """
    client, sent, received = evidence.client, select(evidence.upload, "params"), select(evidence.received, "params")
    network = client.fresh_network("student")
    if not is_whole(network, sent):
        return "no membership inference: what is uploaded is no whole model"
    if not client.data.labelled or not client.data.test:
        return "no membership inference: the site has no labelled training case, or no test case"
    sides = client.data.labelled, tuple(_as_outlined(client, case) for case in client.data.test)
    after = [_losses(client, network, sent, cases) for cases in sides]
    scores: dict[str, Scores] = {"membership_loss": ([-x for x in after[0]], [-x for x in after[1]])}
    if is_whole(network, received):
        before = [_losses(client, network, received, cases) for cases in sides]
        gains = [[b - a for b, a in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)]
        scores["membership_calibrated"] = gains[0], gains[1]
    return scores


def _as_outlined(client: Client, case: Case) -> Case:
    """A test case with the classes that the site's labelled cases have, so that members and others are judged by one loss."""
    if client.annotated is None:
        return case
    names = client.scenario.classes
    return limit_classes(case, names, [names[index - 1] for index in client.annotated])


def membership_rows(attack: str, groups: dict[int, Scores], seed: int, address: tuple[int, int]) -> list[Row]:
    """Success of an attack on one client, or on several taken together without comparing cases of different sites: a row a metric.

    A true positive rate at a low false positive rate has no verdict where a site held back fewer cases than one over that rate, and
    no metric has one where a perfect split would come about by chance too often: three members and three others. It leaks where
    both the interval and a test that holds for few cases leave out chance; where the test does not, the interval ends there.

    Args:
        attack: which.
        groups: scores by client.
        seed: of the resampling.
        address: round and client of the row.
    """
    return [_row(attack, metric, groups, seed, address) for metric in METRICS]


def _row(attack: str, metric: str, groups: dict[int, Scores], seed: int, address: tuple[int, int]) -> Row:
    measure, variance, by_chance, least = METRICS[metric]
    num_members, num_others = (sum(len(scores[side]) for scores in groups.values()) for side in (0, 1))
    row: Row = {"attack": attack, "knows": KNOWS[attack], "metric": metric, "value": pooled(groups, measure), "blind": by_chance}
    row |= {"num_members": num_members, "num_others": num_others}
    is_small = min(num_members, num_others) < MIN_CASES or any(len(others) < least for _, others in groups.values())
    if is_small or least_p(groups) > FALSE_ALARMS:
        return row  # not even a perfect split would tell
    purpose = f"leaks-{attack}" if metric == "auc" else f"leaks-{attack}-{metric}"
    rng = numpy_generator(seed, purpose, *address)
    low, high = interval(groups, measure, variance, rng)
    if p_of_chance(groups, measure, rng) > FALSE_ALARMS:
        low = min(low, by_chance)
    return row | {"low": low, "high": high, "is_leaking": low > by_chance}


def _losses(client: Client, network: SegmentationNetwork, params: Payload, cases: tuple[Case, ...]) -> list[float]:
    """The supervised loss of a model on patches of every case, as they are drawn in training but not augmented."""
    load_state(network, params)
    network.eval()
    return [_loss(client, network, case) for case in cases]


def _loss(client: Client, network: Any, case: Case) -> float:
    training, loss = client.member.training, supervised_loss(client.annotated)
    drawn = batches(
        [training_case(case)],
        (),
        shape=training.patch_shape,
        augmentation=AS_THEY_ARE,
        num_steps=NUM_BATCHES,
        num_labelled=2,
        num_unlabelled=0,
        foreground=training.foreground,
        rng=generator(client.scenario.seed, "leaks-case", client.member.client_id, case.case_id),
    )
    with torch.no_grad():
        values = [float(sum(loss(network, batch).values())) for batch in drawn]
    return sum(values) / len(values)
