"""Soft labels of a few voxels: which are chosen, what of them is written, and what the receiver knows, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raykd.numerics.rng import generator
from raykd.numerics.thinned_labels import Kept, chosen, completed, foreground_distance_mm, restored, thinned

LINE = torch.tensor(
    [
        [0.90, 0.60, 0.20, 0.10, 0.80, 0.70, 1.00, 0.99],
        [0.08, 0.30, 0.70, 0.30, 0.15, 0.20, 0.00, 0.01],
        [0.02, 0.10, 0.10, 0.60, 0.05, 0.10, 0.00, 0.00],
    ]
).view(1, 3, 1, 1, 8)
"""Eight voxels in a row, 2 mm apart: background, background, class 1, class 2, and background to the end."""
SPACING = [[5.0, 3.0, 2.0]]
DISTANCE = foreground_distance_mm(LINE, SPACING)


def picked(kept: Kept) -> list[int]:
    return torch.nonzero(chosen(LINE, DISTANCE, kept).flatten()).flatten().tolist()


def test_distance_is_that_to_the_nearest_voxel_that_is_no_background_in_mm() -> None:
    assert DISTANCE.flatten().tolist() == [4.0, 2.0, 0.0, 0.0, 2.0, 4.0, 6.0, 8.0]
    nothing = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1).expand(1, 2, 2, 2, 2)
    assert foreground_distance_mm(nothing, SPACING).isinf().all()


def test_the_nearest_are_sent_and_of_equally_near_ones_the_surest() -> None:
    """Foreground at 2 and 3; 4 is as near as 1 and surer; 0 is as near as 5 and surer."""
    assert picked(Kept(share=3 / 8)) == [2, 3, 4]
    assert picked(Kept(share=5 / 8)) == [0, 1, 2, 3, 4]
    assert picked(Kept(share=0.01)) == [2]
    assert picked(Kept()) == list(range(8))


def test_voxels_that_are_not_sure_or_far_away_are_left_out() -> None:
    assert picked(Kept(min_confidence=0.7)) == [0, 2, 4, 5, 6, 7]
    assert picked(Kept(within_mm=2.0)) == [1, 2, 3, 4]
    assert picked(Kept(share=2 / 8, min_confidence=0.65, within_mm=4.0)) == [2, 4]


def test_what_is_sent_arrives_and_what_is_not_is_known_to_be_missing() -> None:
    """Voxels 2, 3 and 4 with two classes each; the third class of voxel 2 has what is left, the others' likewise."""
    kept = Kept(share=3 / 8, num_classes=2)
    sent = thinned(LINE, chosen(LINE, DISTANCE, kept), kept)
    assert sent["values"].tolist() == LINE.half()[0, [1, 2, 0, 0, 1, 1], 0, 0, [2, 3, 4, 2, 3, 4]].view(2, 3).tolist()
    assert sent["sent"].flatten().tolist() == [0b00111000]
    assert sent["classes"].tolist() == [0b01_10_00_00, 0b01_01_0000]
    values, is_said = restored(sent, 3)
    assert is_said.any(dim=1).flatten().tolist() == [False, False, True, True, True, False, False, False]
    assert is_said[0, :, 0, 0, 3].tolist() == [False, True, True]
    probs = completed(values, is_said)
    torch.testing.assert_close(probs[..., 2:5], LINE[..., 2:5], rtol=0, atol=1e-3)
    assert (probs[..., :2] == 1 / 3).all() and probs.sum(dim=1).allclose(torch.ones(1, 1, 1, 8))


def said(kept: Kept, values: Tensor) -> dict[str, Tensor]:
    probs = values.softmax(dim=1)
    distance = foreground_distance_mm(probs, [[1.0, 1.0, 1.0]] * len(probs))
    return thinned(values, chosen(probs, distance, kept), kept)


@pytest.mark.parametrize("num_classes", [None, 5, 9])
def test_where_everything_is_kept_everything_arrives(num_classes: int | None) -> None:
    values = torch.randn((3, 5, 4, 3, 11), generator=generator(0, "scores")).half().float()
    arrived, is_said = restored(said(Kept(num_classes=num_classes), values), 5)
    assert torch.equal(arrived[..., :11], values) and is_said[..., :11].all() and not is_said[..., 11:].any()


def test_a_message_is_as_long_whatever_it_says() -> None:
    kept = Kept(share=0.25, min_confidence=0.5, within_mm=3.0, num_classes=2)
    messages = [
        said(kept, values)
        for values in (
            torch.randn((2, 4, 4, 6, 9), generator=generator(0, "scores")),
            torch.zeros(2, 4, 4, 6, 9),  # nothing is sure enough
            100.0 * torch.eye(4)[1].view(1, 4, 1, 1, 1).expand(2, 4, 4, 6, 9),
        )
    ]
    (shapes,) = {tuple((name, tuple(value.shape)) for name, value in sorted(message.items())) for message in messages}
    assert dict(shapes) == {"classes": (math.ceil(2 * 108 * 3 / 8),), "sent": (2, 4, 6, 2), "values": (2, 108)}
    assert not restored(messages[1], 4)[1].any() and int(restored(messages[2], 4)[1].any(dim=1).sum()) == 108


def test_of_classes_without_a_score_nothing_is_said() -> None:
    values = torch.tensor([-math.inf, 2.0, -math.inf]).view(1, 3, 1, 1, 1)
    sent = thinned(values, torch.ones(1, 1, 1, 1, dtype=torch.bool), Kept(num_classes=2))
    arrived, is_said = restored(sent, 3)
    assert is_said[0, :, 0, 0, 0].tolist() == [False, True, False] and arrived[0, :, 0, 0, 0].tolist() == [0.0, 2.0, 0.0]
