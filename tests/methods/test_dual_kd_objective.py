"""The local objective of the reference method, computed by hand for one patch of two voxels and three classes.

"Row n" is a decision on an oddity of the reference code: table A11 of the notes on methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from raykd.methods._context import KnowledgeRequest
from raykd.methods.dual_kd import DualKD
from raykd.numerics.local_sgd import Batch, LocalResult, Loss
from raykd.numerics.params import Payload

Load = Callable[..., Any]
EQUAL_NETWORKS = "student.network={name: unet, width: 8}"


@dataclass
class Site:
    """What a method sees of a client, with nothing behind it but a record of what it was asked."""

    round_index: int = 3
    num_rounds: int = 4
    client_id: int = 0
    num_classes: int = 3
    num_labelled: int = 1
    num_unlabelled: int = 1
    annotated: tuple[int, ...] | None = None
    teacher_classes: tuple[int, ...] | None = None
    teacher: Payload = field(default_factory=lambda: {"teacher/w": torch.zeros(1)})
    loss: Loss | None = None
    requests: list[KnowledgeRequest] = field(default_factory=list)

    def fit(self, start: Payload, loss: Loss, *, num_unlabelled: int = 0, beside: Any = None) -> tuple[Payload, LocalResult]:
        self.loss = loss
        return start, LocalResult(1, {})

    def adapt(self, teacher: Payload, num_steps: int) -> Payload:
        return teacher

    def learn_from(self, teacher: Payload, request: KnowledgeRequest) -> None:
        self.requests.append(request)

    def support_scores(self, model: Payload, role: str, known: tuple[int, ...] | None = None) -> list[tuple[float, int]]:
        return [(1.0, 1), (1.0, 1)]


@dataclass
class Fixed:
    """A network that says the same whatever it sees."""

    logits_BLIJK: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)

    def forward_with_features(self, image: Tensor, layers: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.logits_BLIJK, {layer: self.features[layer] for layer in layers}


def _terms(load: Load, settings: str, model: Fixed, batch: Batch, **site: Any) -> dict[str, float]:
    """The loss terms of a batch under paper-intent with settings."""
    scenario = load(f"method={{name: dual_kd, preset: paper-intent{settings}}}", EQUAL_NETWORKS)
    method, context = DualKD(scenario.method, scenario), Site(**site)
    method.local_update(context, {}, {"params/w": torch.zeros(1)})
    assert context.loss is not None
    return {name: float(value) for name, value in context.loss(model, batch).items()}


def _batch(soft: Sequence[Sequence[float]], entropy: Sequence[float], **more: Any) -> Batch:
    """One unlabelled patch of as many voxels as there are soft labels."""
    soft_BLIJK = torch.tensor(soft).T[None, :, :, None, None]
    return Batch(
        image_BCIJK=torch.zeros(1, 1, len(soft), 1, 1),
        label_BIJK=torch.zeros(0, len(soft), 1, 1, dtype=torch.long),
        num_labelled=0,
        soft_label_BLIJK=soft_BLIJK,
        entropy_BIJK=torch.tensor(entropy)[None, :, None, None],
        **more,
    )


CERTAIN, UNDECIDED = (1.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3)
ZEROS = Fixed(torch.zeros(1, 3, 2, 1, 1))
"""It gives each class a third, which is off a certain voxel by (2/3)^2 + 2 (1/3)^2 = 2/3 and off an undecided one by 0."""
PLAIN = ", feature: none, response_weight: 1.0, response_ramp: false"


def test_row_8_the_squared_error_is_divided_by_the_number_of_classes(load: Load) -> None:
    terms = _terms(load, PLAIN, ZEROS, _batch([CERTAIN, CERTAIN], [0.0, 0.0]))
    assert terms == {"response": pytest.approx(2 / 3 / 3)}


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("classes", 2 / 9 / 2),  # both voxels count: 1.0 is under ln 3
        ("two", 0.0),  # only the undecided one does: 1.0 is over ln 2
        ("none", 2 / 9 / 2),
    ],
)
def test_row_7_the_entropy_limit_has_the_number_of_classes_as_base_or_two_as_the_code(
    load: Load, mask: str, expected: float
) -> None:
    """In the last round, where the limit is ln(base): a certain voxel of entropy 1.0 and an undecided one of 0.5."""
    terms = _terms(load, f"{PLAIN}, mask: {mask}", ZEROS, _batch([CERTAIN, UNDECIDED], [1.0, 0.5]))
    assert terms["response"] == pytest.approx(expected)


def test_row_7_a_voxel_over_the_limit_is_not_learnt_from(load: Load) -> None:
    terms = _terms(load, PLAIN, ZEROS, _batch([CERTAIN, UNDECIDED], [1.2, 0.5]))
    assert terms["response"] == 0.0


def test_row_9_the_entropy_limit_rises_over_the_rounds(load: Load) -> None:
    """From about 3/4 ln 3 = 0.824 to ln 3 = 1.099: an entropy of 1.0 is over the first and under the last."""
    batch = _batch([CERTAIN, UNDECIDED], [1.0, 0.5])
    first, last = (_terms(load, PLAIN, ZEROS, batch, round_index=r, num_rounds=10)["response"] for r in (0, 9))
    assert (first, last) == (0.0, pytest.approx(2 / 9 / 2))


def test_row_10_the_weight_of_the_response_rises_over_the_federation(load: Load) -> None:
    """By exp(-5 (1 - r/R)^2), with r the rounds begun, up to alpha = 0.1 in the last."""
    batch = _batch([CERTAIN, CERTAIN], [0.0, 0.0])
    terms = [_terms(load, ", feature: none", ZEROS, batch, round_index=r)["response"] for r in range(4)]
    expected = [0.1 * math.exp(-5 * (1 - r / 4) ** 2) * 2 / 9 for r in (1, 2, 3, 4)]
    assert terms == pytest.approx(expected)


def test_row_12_the_feature_term_is_the_mean_divergence_over_positions_a_channel(load: Load) -> None:
    """Teacher (1/2, 1/2), student (3/4, 1/4): the divergence is ln(4/3) / 2, over two channels and weight 1."""
    teacher, student = torch.zeros(1, 2, 2, 1, 1), torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1, 1).expand(1, 2, 2, 1, 1)
    model = Fixed(torch.zeros(1, 3, 2, 1, 1), {"bottleneck": student})
    batch = _batch([CERTAIN, CERTAIN], [0.0, 0.0], features={"bottleneck": teacher})
    assert _terms(load, ", response: none", model, batch) == {"feature": pytest.approx(math.log(4 / 3) / 2 / 2)}


def test_labelled_patches_are_taught_by_their_labels_alone(load: Load) -> None:
    """A labelled patch on which student and teacher disagree beside an unlabelled one on which they agree."""
    soft = torch.tensor([CERTAIN, UNDECIDED])[:, :, None, None, None].expand(2, 3, 2, 1, 1)
    batch = Batch(torch.zeros(2, 1, 2, 1, 1), torch.zeros(1, 2, 1, 1, dtype=torch.long), 1, soft, torch.zeros(2, 2, 1, 1))
    terms = _terms(load, PLAIN, Fixed(torch.zeros(2, 3, 2, 1, 1)), batch)
    assert terms["response"] == pytest.approx(0.0, abs=1e-9)
    assert terms["supervised"] > 0.1


def test_row_28_the_teacher_is_asked_for_the_passes_noise_and_layers_of_the_settings(load: Load) -> None:
    features = "feature: region_affinity, feature_layers: [bottleneck]"
    scenario = load(f"method={{name: dual_kd, num_passes: 3, input_noise: 0.2, {features}, trust: false}}")
    site = Site()
    DualKD(scenario.method, scenario).local_update(site, {}, {"params/w": torch.zeros(1)})
    assert site.requests == [KnowledgeRequest(num_passes=3, input_noise=0.2, layers=("bottleneck",))]
