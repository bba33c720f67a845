"""Networks over whole volumes: what padding, pairs and windows must not change, and passes that follow their generator alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.federation.inference import pad_to_multiple, pad_to_patch, predict_features, predict_labels, predict_logits, soft_label
from raykd.models._base import SegmentationNetwork, build_network
from raykd.models.unet import UNet
from raykd.numerics.rng import generator

NUM_CLASSES = 3
DIVISIBLE, UNEVEN = (8, 16, 16), (5, 13, 18)


def unet(dropout: float = 0.0) -> SegmentationNetwork:
    return build_network(UNet.Settings(name="unet", width=4, dropout=dropout), NUM_CLASSES, 0).eval()


def volume(shape: tuple[int, int, int], name: str = "volume", num: int = 1) -> Tensor:
    return torch.randn((num, 1, *shape), generator=generator(0, name))


class Pointwise(SegmentationNetwork):
    """Looks at one voxel at a time, so that windows cannot matter; remembers what it was shown."""

    layers = {"encoder_0": (2, 4, 4)}

    def __init__(self) -> None:
        super().__init__(None, NUM_CLASSES)
        self.slope = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1, 1))
        self.seen: list[Tensor] = []

    def forward(self, image_BCIJK: Tensor) -> Tensor:
        self.seen.append(image_BCIJK.clone())
        return self.slope * image_BCIJK + 0.1 * self.slope * image_BCIJK**2

    def forward_with_features(self, image_BCIJK: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        return self(image_BCIJK), {}


WINDOW = (8, 16, 16)


def test_a_volume_that_fits_is_not_padded() -> None:
    whole = volume(DIVISIBLE)
    assert torch.equal(pad_to_multiple(whole, (4, 8, 8)), whole)


def test_a_volume_is_padded_at_the_end_with_its_last_plane() -> None:
    whole = volume(UNEVEN)
    expected = np.pad(whole.numpy(), [(0, 0), (0, 0), (0, 3), (0, 3), (0, 6)], mode="edge")
    assert np.array_equal(pad_to_multiple(whole, (4, 8, 8)).numpy(), expected)


def test_only_a_volume_smaller_than_a_patch_is_padded_to_it_as_a_training_patch_is() -> None:
    whole = volume(UNEVEN)
    expected = np.pad(whole.numpy(), [(0, 0), (0, 0), (0, 3), (0, 3), (0, 0)], constant_values=whole.min().item())
    assert np.array_equal(pad_to_patch(whole, (8, 16, 16)).numpy(), expected)


def test_logits_of_a_volume_that_fits_are_the_network_s() -> None:
    net, pair = unet(), volume(DIVISIBLE, num=2)
    with torch.no_grad():
        torch.testing.assert_close(predict_logits(net, pair), net(pair))


def test_logits_of_any_shape_are_those_of_the_padded_volume_cut_back() -> None:
    net, pair = unet(), volume(UNEVEN, num=2)
    with torch.no_grad():
        expected = net(pad_to_multiple(pair, (4, 8, 8)))[:, :, :5, :13, :18]
    logits = predict_logits(net, pair)
    assert logits.shape == (2, NUM_CLASSES, *UNEVEN)
    torch.testing.assert_close(logits, expected)


def test_a_lone_volume_is_seen_as_it_is_in_a_pair() -> None:
    net, one, other = unet(), volume(DIVISIBLE), volume(DIVISIBLE, "other")
    alone = predict_logits(net, one)
    assert len(alone) == 1
    torch.testing.assert_close(alone, predict_logits(net, torch.cat([one, other]))[:1], rtol=1e-4, atol=1e-5)


def test_no_network_is_given_a_batch_of_one() -> None:
    net = Pointwise()
    predict_logits(net, volume(DIVISIBLE))
    soft_label(net, volume(DIVISIBLE)[0, 0], num_passes=3, input_noise=0.1, rng=generator(0, "noise"))
    assert min(len(batch) for batch in net.seen) == 2


def test_no_network_is_given_a_batch_of_one_window() -> None:
    net = Pointwise()
    predict_logits(net, volume((8, 32, 32)), WINDOW)  # three by three windows, half of each overlapping the next
    assert [len(batch) for batch in net.seen] == [2] * 5


def test_windows_change_nothing_for_a_local_network() -> None:
    net, large = Pointwise(), volume((8, 40, 50))
    logits = predict_logits(net, large, WINDOW)
    assert len(net.seen) > 2 and all(batch.shape[2:] == WINDOW for batch in net.seen)
    with torch.no_grad():
        torch.testing.assert_close(logits, net(large), rtol=1e-4, atol=1e-5)


def test_windows_see_nothing_but_the_volume_where_it_is_as_large_as_they_are() -> None:
    net, odd = Pointwise(), volume((11, 21, 35)).abs() + 1.0
    predict_logits(net, odd, WINDOW)
    assert all(bool(torch.isin(batch, odd).all()) for batch in net.seen)


def test_a_window_on_a_flat_volume_is_padded_as_in_training() -> None:
    net, flat = Pointwise(), volume((3, 40, 50))
    logits = predict_logits(net, flat, WINDOW)
    assert {batch.shape[2:] for batch in net.seen} == {WINDOW}
    assert all(bool((batch[:, :, 3:] == flat.min()).all()) for batch in net.seen)
    with torch.no_grad():
        torch.testing.assert_close(logits, net(flat), rtol=1e-4, atol=1e-5)


def test_without_a_window_a_volume_is_seen_at_once() -> None:
    net = Pointwise()
    predict_logits(net, volume((10, 10, 10)))
    assert {batch.shape[2:] for batch in net.seen} == {(10, 12, 12)}


def test_the_classes_predicted_are_those_with_the_largest_logit_in_evaluation_mode() -> None:
    net, image = unet(dropout=0.5), volume(UNEVEN)[0, 0]
    net.train()
    predicted = predict_labels(net, image)
    assert not net.training and predicted.dtype == torch.uint8
    assert np.array_equal(predicted.numpy(), predict_logits(net, image[None, None])[0].numpy().argmax(axis=0))


def test_feature_maps_are_those_of_the_padded_volume() -> None:
    net, image = unet(), volume(UNEVEN)[0, 0]
    features = predict_features(net, image, ["bottleneck", "decoder_1"])
    # 5, 13, 18 are padded to 8, 16, 24.
    assert features["bottleneck"].shape[1:] == (2, 2, 3) and features["decoder_1"].shape[1:] == (8, 8, 12)
    with torch.no_grad():
        _, expected = net.forward_with_features(pad_to_multiple(image[None, None], (4, 8, 8)), ("bottleneck", "decoder_1"))
    for layer, feature in features.items():
        torch.testing.assert_close(feature, expected[layer][0], rtol=1e-4, atol=1e-5)


def test_feature_maps_in_windows_are_those_of_each_window() -> None:
    net, image = unet(), volume((8, 20, 16))[0, 0]
    features = predict_features(net, image, ["bottleneck", "decoder_1"], WINDOW)
    assert features["bottleneck"].shape[1:] == (2, 3, 2) and features["decoder_1"].shape[1:] == (8, 12, 8)
    with torch.no_grad():
        _, first = net.forward_with_features(image[None, None, :, :16], ("bottleneck", "decoder_1"))
    # 20 is padded to 24, of which the second window has the last 16, and both the 8 between.
    torch.testing.assert_close(features["bottleneck"][:, :, :1], first["bottleneck"][0, :, :, :1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features["decoder_1"][:, :, :4], first["decoder_1"][0, :, :, :4], rtol=1e-4, atol=1e-5)


def test_no_pass_is_the_softmax_of_the_clean_logits() -> None:
    net, image = unet(dropout=0.5), volume(DIVISIBLE)[0, 0]
    net.train()
    said = soft_label(net, image, num_passes=0, input_noise=0.5, rng=generator(0, "noise"))
    assert torch.equal(said, torch.softmax(predict_logits(net.eval(), image[None, None])[0], dim=0))


@pytest.mark.parametrize("num_passes", [1, 2, 3, 8])
def test_passes_without_dropout_and_noise_are_the_clean_pass(num_passes: int) -> None:
    net, image = unet(), volume(DIVISIBLE)[0, 0]
    clean, said = (soft_label(net, image, num_passes=n, input_noise=0.0, rng=generator(0, "noise")) for n in (0, num_passes))
    torch.testing.assert_close(said, clean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dropout", "noise"), [(0.3, 0.0), (0.0, 0.3)])
def test_dropout_and_noise_each_change_what_passes_say(dropout: float, noise: float) -> None:
    net, image = unet(dropout), volume(DIVISIBLE)[0, 0]
    clean, said = (soft_label(net, image, num_passes=n, input_noise=noise, rng=generator(0, "noise")) for n in (0, 2))
    assert float((said - clean).abs().max()) > 1e-3
    torch.testing.assert_close(said.sum(dim=0), torch.ones(DIVISIBLE))


def test_passes_depend_on_their_generator_alone() -> None:
    net, image = unet(dropout=0.3), volume(DIVISIBLE)[0, 0]

    def said(seed: int, global_seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            return soft_label(net, image, num_passes=3, input_noise=0.1, rng=generator(seed, "noise"))

    assert torch.equal(said(0, 1), said(0, 2))
    assert not torch.equal(said(0, 1), said(1, 1))


def test_passes_touch_no_global_state_and_leave_evaluation_mode() -> None:
    net, before = unet(dropout=0.3), torch.get_rng_state()
    soft_label(net, volume(DIVISIBLE)[0, 0], num_passes=3, input_noise=0.1, rng=generator(0, "noise"))
    assert torch.equal(torch.get_rng_state(), before) and not any(module.training for module in net.modules())


def test_a_soft_label_is_the_mean_of_exactly_as_many_passes_each_with_its_own_noise() -> None:
    net, image = Pointwise(), volume(DIVISIBLE)[0, 0]
    said = soft_label(net, image, num_passes=5, input_noise=0.2, rng=generator(0, "noise"))
    shown = [one for batch in net.seen for one in batch.unique(dim=0)]
    assert len(shown) == 5
    logits = Pointwise()(torch.stack(shown)).detach()
    torch.testing.assert_close(said, F.softmax(logits, dim=1).mean(dim=0), rtol=1e-4, atol=1e-6)


def test_noise_has_its_strength_and_is_clipped_at_twice_it() -> None:
    net, image = Pointwise(), volume((8, 32, 32))[0, 0]
    soft_label(net, image, num_passes=2, input_noise=0.2, rng=generator(0, "noise"))
    noise = (net.seen[0] - image) / 0.2
    assert float(noise.abs().max()) == pytest.approx(2.0, abs=1e-4)
    # A normal clipped at two has a spread of 0.9594 and 4.55 % of its values at the clip; there are 16384 values.
    assert float(noise.std()) == pytest.approx(0.9594, abs=0.03) and float(noise.mean()) == pytest.approx(0.0, abs=0.05)
    assert float((noise.abs() > 1.9999).float().mean()) == pytest.approx(0.0455, abs=0.01)


def test_predictions_carry_no_gradient() -> None:
    net, image = unet(dropout=0.3), volume(DIVISIBLE)[0, 0]
    said = soft_label(net, image, num_passes=2, input_noise=0.1, rng=generator(0, "noise"))
    features = predict_features(net, image, ["bottleneck"])["bottleneck"]
    assert not said.requires_grad and not features.requires_grad and not predict_logits(net, image[None, None]).requires_grad
