"""What a teacher says of a case: by its formula, drawn at its own address, and the same from disk as computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.data.patches import Knowledge, TrainingCase
from raykd.federation.inference import predict_features, predict_logits, soft_label
from raykd.federation.knowledge import cached_knowledge, compute_knowledge, image_hash, payload_hash
from raykd.methods._context import KnowledgeRequest
from raykd.models._base import SegmentationNetwork, build_network
from raykd.models.unet import UNet
from raykd.numerics.params import state_of
from raykd.numerics.rng import generator

SHAPE = (4, 8, 10)
CLEAN = KnowledgeRequest(num_passes=0)
FULL = KnowledgeRequest(num_passes=3, input_noise=0.1, layers=("bottleneck", "decoder_1"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))


def teacher(seed: int = 0) -> SegmentationNetwork:
    return build_network(UNet.Settings(name="unet", width=4, dropout=0.3), 3, seed)


def a_case(case_id: str = "c-1", name: str = "image") -> TrainingCase:
    image = torch.randn(SHAPE, generator=generator(0, name))
    return TrainingCase(case_id, image, None, image.flatten(), {})


def tensors(said: Knowledge) -> list[Tensor]:
    return [said.soft_label_LIJK, said.entropy_IJK, *(said.features[layer] for layer in sorted(said.features))]


def assert_same(one: Knowledge, other: Knowledge) -> None:
    assert one.features.keys() == other.features.keys() and dict(one.strides) == dict(other.strides)
    for a, b in zip(tensors(one), tensors(other), strict=True):
        assert a.dtype == b.dtype == torch.float16 and torch.equal(a, b)


def entropy_by_hand(probs: Tensor) -> np.ndarray:
    p = probs.double().numpy()
    return -(p * np.log(np.maximum(p, 1e-12))).sum(axis=0)


def test_a_clean_pass_is_the_softmax_and_its_entropy() -> None:
    net, case = teacher(), a_case()
    said = compute_knowledge(net, case, request=CLEAN, seed=0, version="v")
    probs = torch.softmax(predict_logits(net.eval(), case.image_IJK[None, None])[0], dim=0)
    torch.testing.assert_close(said.soft_label_LIJK.float(), probs, rtol=0, atol=1e-3)
    assert np.allclose(said.entropy_IJK.float().numpy(), entropy_by_hand(probs), atol=3e-3)
    assert not said.features and not said.strides


def test_stochastic_passes_have_an_address_of_their_own() -> None:
    net, case = teacher(), a_case()
    said = compute_knowledge(net, case, request=FULL, seed=5, version="v")
    expected = soft_label(net, case.image_IJK, num_passes=3, input_noise=0.1, rng=generator(5, "knowledge", "c-1", "v"))
    assert torch.equal(said.soft_label_LIJK, expected.half())


def test_feature_maps_are_those_of_a_clean_pass_with_their_strides() -> None:
    net, case = teacher(), a_case()
    said = compute_knowledge(net, case, request=FULL, seed=0, version="v")
    clean = predict_features(net, case.image_IJK, FULL.layers)
    assert dict(said.strides) == {"bottleneck": (4, 8, 8), "decoder_1": (1, 2, 2)}
    assert all(torch.equal(said.features[layer], clean[layer].half()) for layer in FULL.layers)


@pytest.mark.parametrize("change", [{"seed": 1}, {"version": "w"}, {"case": a_case("c-2")}])
def test_passes_are_drawn_anew_for_another_seed_version_or_case(change: dict[str, object]) -> None:
    arguments = {"case": a_case(), "seed": 0, "version": "v"}
    one, other = (
        compute_knowledge(teacher(), a["case"], request=FULL, seed=a["seed"], version=a["version"])  # type: ignore[arg-type]
        for a in (arguments, arguments | change)
    )
    assert not torch.equal(one.soft_label_LIJK, other.soft_label_LIJK)


def test_what_is_said_does_not_depend_on_what_was_said_before() -> None:
    net = teacher()
    first = compute_knowledge(net, a_case(), request=FULL, seed=0, version="v")
    compute_knowledge(net, a_case("c-2", "other"), request=FULL, seed=0, version="v")
    assert_same(first, compute_knowledge(net, a_case(), request=FULL, seed=0, version="v"))


def mute(net: SegmentationNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(*args: object) -> Tensor:
        raise AssertionError("the teacher was asked again")

    monkeypatch.setattr(net, "forward", speak)
    monkeypatch.setattr(net, "forward_with_features", speak)


@pytest.mark.parametrize("request_", [CLEAN, FULL], ids=["clean", "full"])
def test_the_cache_gives_what_was_computed_without_asking_again(
    request_: KnowledgeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, case = teacher(), a_case()
    computed = compute_knowledge(net, case, request=request_, seed=0, version="v")
    assert_same(cached_knowledge(net, case, request=request_, seed=0, version="v"), computed)
    mute(net, monkeypatch)
    assert_same(cached_knowledge(net, case, request=request_, seed=0, version="v"), computed)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"version": "w"},
        {"case": a_case("c-2")},
        {"case": a_case("c-1", "another image")},
        {"request": replace(FULL, num_passes=4)},
        {"request": replace(FULL, input_noise=0.2)},
        {"request": replace(FULL, layers=("bottleneck",))},
    ],
)
def test_the_cache_takes_nothing_for_the_same_that_is_not(change: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    net = teacher()
    arguments = {"case": a_case(), "request": FULL, "seed": 0, "version": "v"}
    cached_knowledge(net, a_case(), request=FULL, seed=0, version="v")
    mute(net, monkeypatch)
    a = arguments | change
    with pytest.raises(AssertionError, match="asked again"):
        cached_knowledge(net, a["case"], request=a["request"], seed=a["seed"], version=a["version"])  # type: ignore[arg-type]


def test_the_version_of_a_model_follows_its_values_and_names_and_not_their_order() -> None:
    state = state_of(teacher())
    changed, renamed = dict(state), dict(state)
    key = next(iter(state))
    changed[key] = state[key] + 1e-6
    renamed[f"{key}x"] = renamed.pop(key)
    versions = [payload_hash(p) for p in (state, dict(reversed(state.items())), changed, renamed, state_of(teacher(1)))]
    assert versions[0] == versions[1] and len(set(versions)) == 4 and len(versions[0]) == 32


def test_the_hash_of_a_volume_follows_its_voxels_and_not_its_memory() -> None:
    image = a_case().image_IJK
    turned = image.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    other = image.clone()
    other[0, 0, 0] += 1e-6
    assert image_hash(image) == image_hash(turned) != image_hash(other)


def test_in_windows_a_teacher_says_of_a_patch_what_it_says_of_that_patch_alone() -> None:
    net, case = teacher(), a_case()
    shape = tuple(case.image_IJK.shape)
    window = (4, shape[1] - shape[1] % 8, shape[2] - shape[2] % 8)
    whole = compute_knowledge(net, case, request=CLEAN, seed=0, version="v")
    pieces = compute_knowledge(net, case, request=CLEAN, seed=0, version="v", window=window)
    corner = case.image_IJK[: window[0], : window[1], : window[2]]
    alone = torch.softmax(predict_logits(net.eval(), corner[None, None])[0], dim=0)
    torch.testing.assert_close(pieces.soft_label_LIJK[:, 0, 0, 0].float(), alone[:, 0, 0, 0], rtol=0, atol=2e-3)
    assert not torch.allclose(whole.soft_label_LIJK, pieces.soft_label_LIJK, atol=1e-3)
