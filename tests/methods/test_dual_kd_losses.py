"""Every loss, mask and weighting that `dual_kd` can be told, by name, in a run from broadcast to table."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import cycle
from typing import Any, get_args

import pytest

from raykd.methods._dual_kd_settings import DualKDSettings, FeatureName
from raykd.numerics.dual_distillation import FEATURE_LOSSES, RESPONSE_LOSSES

Record = Callable[..., Any]
QUICK = "start: cold, teacher: frozen, trust: false, num_passes: 0"
ROUND = ("federation.rounds=1", "federation.participation=0.34")
"""A round of one of the three sites."""
EQUAL_NETWORKS = "student.network={name: unet, width: 8}"


def names(setting: str) -> set[str]:
    """The words that a setting takes."""
    optional = DualKDSettings.model_fields[setting].annotation
    return {name for choice in get_args(optional) for name in get_args(choice)}


def terms(record: Record, settings: str, *overrides: str) -> Any:
    """The training table of one round under a teacher that stays as it is."""
    return record(f"method={{name: dual_kd, {QUICK}, {settings}}}", *ROUND, *overrides).outcome.table("training")


def test_the_tables_of_losses_are_what_the_settings_take() -> None:
    assert names("response") == {*RESPONSE_LOSSES, "none"}
    assert set(get_args(FeatureName)) == {*FEATURE_LOSSES, "none"}


@pytest.mark.parametrize(("response", "feature"), list(zip(cycle(sorted(RESPONSE_LOSSES)), sorted(FEATURE_LOSSES), strict=False)))
def test_a_run_learns_from_each_response_and_each_feature_loss(record: Record, response: str, feature: str) -> None:
    networks = EQUAL_NETWORKS if feature == "channel_kl" else "student.network={name: unet, width: 4}"
    table = terms(record, f"mask: none, response: {response}, feature: {feature}", networks)
    losses = table["loss_response"].tolist() + table["loss_feature"].tolist()
    assert losses and all(math.isfinite(loss) and loss > 0 for loss in losses)


@pytest.mark.parametrize(
    "settings",
    [
        "emphasis: boundary, mask: none",
        "emphasis: classes, mask: none",
        "mask: quantile, certain_share: 0.5",
        "labelled: adjusted, mask: none",
        "labelled: annealed, mask: none",
    ],
)
def test_a_run_with_each_weighting_learns_something_else(record: Record, settings: str) -> None:
    plain = terms(record, "response: kl, feature: none, mask: none")["loss_response"]
    changed = terms(record, f"response: kl, feature: none, {settings}")["loss_response"]
    assert all(math.isfinite(loss) and loss > 0 for loss in changed)
    assert changed.tolist() != plain.tolist()


@pytest.mark.parametrize(("labelled", "teaches"), [("none", False), ("adjusted", True)])
def test_labelled_patches_are_distilled_on_where_they_are_asked_for(record: Record, labelled: str, teaches: bool) -> None:
    table = terms(record, f"response: kl, feature: none, num_unlabelled: 0, labelled: {labelled}")
    assert ("loss_response" in table and bool((table["loss_response"] > 0).all())) == teaches
