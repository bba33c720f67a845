"""Channels that drop out of feature maps."""

from __future__ import annotations

import torch
from torch import nn

from raykd.numerics.channel_dropout import drop_channels, dropping_channels


def test_whole_channels_of_a_patch_drop_and_the_others_are_scaled() -> None:
    found = drop_channels(torch.ones(4, 200, 1, 2, 2), 0.25, torch.Generator().manual_seed(0))
    values = found.flatten(2)
    assert set(found.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert bool((values == values[..., :1]).all())
    assert 0.2 < float((values[..., 0] == 0).float().mean()) < 0.3
    assert not torch.equal(values[0], values[1])


def test_nothing_drops_at_rate_zero() -> None:
    feature = torch.randn(2, 3, 1, 1, 1)
    assert torch.equal(drop_channels(feature, 0.0, torch.Generator()), feature)


def test_parts_lose_channels_within_and_not_after() -> None:
    network = nn.Sequential(nn.Identity(), nn.Identity())
    feature, rng = torch.ones(1, 1000, 1, 1, 1), torch.Generator().manual_seed(0)
    with dropping_channels([network[0]], 0.5, rng):
        within = network(feature)
    assert 0.4 < float((within == 0).float().mean()) < 0.6
    assert torch.equal(network(feature), feature)
