"""A generator of features by class and its losses, by hand; and that it learns to please the classifiers it is trained on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from raykd.models._base import build_network, head_channels
from raykd.numerics.class_generator import (
    ClassGenerator,
    class_logits,
    class_shares,
    diversity_loss,
    ensemble_loss,
    latent_loss,
)
from raykd.scenario.registry import NETWORKS


def test_a_constant_map_gives_a_pointwise_head_its_own_logits() -> None:
    head = nn.Conv3d(5, 3, 1)
    feature = torch.randn((2, 5), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(class_logits(head, feature), feature @ head.weight.flatten(1).T + head.bias)


def test_borders_do_not_reach_the_middle_of_a_head_with_a_wider_kernel() -> None:
    head = nn.Conv3d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(head.weight)
    assert class_logits(head, torch.ones(1, 1)).item() == pytest.approx(27.0)


@pytest.mark.parametrize("name", ["unet", "vnet", "segresnet", "dynunet"])
def test_every_networks_head_takes_as_many_channels_as_are_counted(name: str) -> None:
    network = build_network(NETWORKS.get(name).Settings(name=name), 3, seed=0)
    assert class_logits(network.head, torch.zeros(2, head_channels(network))).shape == (2, 3)


def test_diversity_is_lower_where_unlike_noise_gives_unlike_features() -> None:
    """Noise (0) and (2): squared distance 4; features (0, 0) and (1, 3): mean absolute distance 2; pairs (8 + 8) / 4."""
    noise, same = torch.tensor([[0.0], [2.0]]), torch.zeros(2, 2)
    assert float(diversity_loss(noise, torch.tensor([[0.0, 0.0], [1.0, 3.0]]))) == pytest.approx(math.exp(-4.0))
    assert float(diversity_loss(noise, same)) == 1.0


def test_a_site_counts_by_its_share_of_the_class() -> None:
    """Class 0: sites have 3 and 1 of 4; class 1 is the second's alone; class 2 nobody's."""
    share = class_shares(torch.tensor([[3.0, 0.0, 0.0], [1.0, 5.0, 0.0]]))
    assert share.tolist() == [[0.75, 0.0, 0.0], [0.25, 1.0, 0.0]]
    sure = torch.tensor([[50.0, 0.0, 0.0], [0.0, 50.0, 0.0]])
    even = torch.zeros(2, 3)
    label = torch.tensor([0, 1])
    assert float(ensemble_loss([even, sure], label, share)) == pytest.approx(0.5 * 0.75 * math.log(3), rel=1e-5)


def test_latent_loss_compares_a_classs_mean_probabilities_with_the_generated_ones() -> None:
    """Class 0 has voxels of p = (1/2, 1/2) twice, generated (1, 0): ln 2. Class 1 is not there; the last voxel is unknown."""
    logits = torch.tensor([[0.0, 0.0, 9.0], [0.0, 0.0, -9.0]]).view(1, 2, 1, 1, 3)
    label, target = torch.tensor([[[[0, 0, 255]]]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(latent_loss(logits, label, target)) == pytest.approx(math.log(2), rel=1e-5)
    assert float(latent_loss(logits, torch.full_like(label, 255), target)) == 0.0


def test_the_generator_learns_features_that_a_classifier_takes_for_their_class() -> None:
    torch.manual_seed(0)
    head, rng = nn.Conv3d(4, 3, 1).requires_grad_(False), torch.Generator().manual_seed(1)
    made = ClassGenerator(3, 6, 16, 4)
    label, optimiser = torch.arange(3).repeat(8), torch.optim.Adam(made.parameters(), 0.02)
    losses = []
    for _ in range(60):
        loss = ensemble_loss([class_logits(head, made(torch.randn((24, 6), generator=rng), label))], label, torch.ones(1, 3))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
