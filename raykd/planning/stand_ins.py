"""Cases that stand for those of a client where only their number matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from raykd.data.case import Case, affine_from_spacing
from raykd.data.federation import ClientData
from raykd.data.heterogeneity.label_budget import Split
from raykd.numerics.rng import generator
from raykd.scenario.schema import Scenario


def stand_in_data(scenario: Scenario, splits: Sequence[Split], shape: tuple[int, int, int]) -> ClientData:
    """As many cases as the splits hold, all the same small one, in which every class occurs."""
    num_classes = len(scenario.classes) + 1
    rng = generator(scenario.seed, "stand-in")
    label = torch.randint(num_classes, shape, generator=rng, dtype=torch.uint8)
    label.view(-1)[:num_classes] = torch.arange(num_classes)[: label.numel()]
    image = label[None].float() + torch.randn((1, *shape), generator=rng)
    case = Case("stand-in", "stand-in", image, label, affine_from_spacing((1.0, 1.0, 1.0), shape))
    counts = {name: sum(len(getattr(split, name)) for split in splits) for name in ("labelled", "unlabelled", "validation", "test")}
    bare = replace(case, label_IJK=None)
    return ClientData(
        labelled=(case,) * counts["labelled"],
        unlabelled=(bare,) * counts["unlabelled"],
        validation=(case,) * counts["validation"],
        test=(case,) * counts["test"],
    )


def small_shape(patch_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Large enough for every layer of a network, and small: what is learnt from it does not matter."""
    i, j, k = (min(16, size) for size in patch_shape)
    return i, j, k
