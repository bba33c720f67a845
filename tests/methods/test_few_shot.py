"""Prototypes of few labels: in the place of a head, shared between sites, and as a term beside any loss of `dual_kd`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.methods._site_prototypes import added, bank_of, by_class, sums_of, thinned
from raykd.models._base import SegmentationNetwork
from raykd.models._prototype_head import PrototypeClassifier
from raykd.numerics.local_sgd import Batch
from raykd.scenario.errors import RaykdError

Record = Callable[..., Any]
TensorsIn = Callable[[Any], dict[str, np.ndarray]]
PLAIN = "method={name: proto_shot}"
SHARED = "method={name: proto_shot, shared: true}"
UNLABELLED = "clients[0].labels.num_shots=0"


class Echo(SegmentationNetwork):
    """Its features are the image's channels, averaged over pairs of voxels along K; its logits are given."""

    def __init__(self, logits_L: tuple[float, ...]):
        super().__init__(None, len(logits_L))
        self.layers, self._logits_L = {"decoder_1": (1, 1, 2)}, torch.tensor(logits_L)

    def forward(self, image_BCIJK: Tensor) -> Tensor:
        return self._logits_L.view(1, -1, 1, 1, 1).expand(len(image_BCIJK), -1, *image_BCIJK.shape[2:])

    def forward_with_features(self, image_BCIJK: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        return self(image_BCIJK), {"decoder_1": torch.nn.functional.avg_pool3d(image_BCIJK, (1, 1, 2))}


IMAGE = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]).view(1, 2, 1, 1, 4)
EAST, NORTH, NONE = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.1]]), torch.zeros(0, 2)


def test_a_voxel_is_of_the_class_whose_prototype_points_its_way() -> None:
    classifier = PrototypeClassifier(Echo((0.0, 9.0, 0.0)), "decoder_1", [NORTH, NONE, EAST])
    assert classifier(IMAGE).argmax(dim=1).flatten().tolist() == [2, 2, 0, 0]


def test_the_heads_share_is_mixed_as_probabilities() -> None:
    """At the first voxel the prototypes say class 0 with e^20 to 1 and the head says 1/2 to 1/2."""
    classifier = PrototypeClassifier(Echo((0.0, 0.0)), "decoder_1", [EAST, NORTH], head_share=0.4)
    assert classifier(IMAGE).exp()[0, :, 0, 0, 0].tolist() == pytest.approx([0.4 * 0.5 + 0.6, 0.4 * 0.5], abs=1e-6)


def test_what_the_head_was_not_taught_is_part_of_its_background() -> None:
    classifier = PrototypeClassifier(Echo((0.0, 0.0, 0.0)), "decoder_1", [NONE] * 3, head_share=1.0, known=(2,))
    assert classifier(IMAGE).exp()[0, :, 0, 0, 0].tolist() == pytest.approx([2 / 3, 0.0, 1 / 3], abs=1e-6)


def _batch(label: list[int], spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Batch:
    label_BIJK = torch.tensor(label).view(1, 1, 1, -1)
    return Batch(torch.zeros(1, 1, *label_BIJK.shape[1:]), label_BIJK, 1, spacing_mm_B3=torch.tensor([spacing_mm]))


def test_prototypes_are_means_over_all_that_was_seen_and_absent_classes_have_none() -> None:
    """Class 1 has 1, 2 in one patch and 6 in the other; 255 counts nowhere."""
    maps = [torch.tensor([1.0, 2.0, 5.0]).view(1, 1, 1, 1, 3), torch.tensor([6.0, 9.0, 7.0]).view(1, 1, 1, 1, 3)]
    found = [sums_of(maps[:1], [_batch([1, 1, 0])], 3), sums_of(maps[1:], [_batch([1, 255, 0])], 3)]
    assert [prototype_PF.flatten().tolist() for prototype_PF in by_class(added(found), 3)] == [[6.0], [3.0], []]


def test_windows_are_measured_in_millimetres_of_the_feature_grid() -> None:
    """Cells of 2 mm: a window of 4 mm holds two of them, and the foreground's mean is kept besides."""
    maps, batch = [torch.tensor([1.0, 3.0, 5.0, 7.0]).view(1, 1, 1, 1, 4)], _batch([1] * 8, (1.0, 1.0, 1.0))
    bank = bank_of(maps, [batch], 2, window_mm=4.0, stride=(1, 1, 2))
    assert [prototype_PF.flatten().tolist() for prototype_PF in by_class(bank, 2)] == [[], [2.0, 6.0, 4.0]]
    wider = bank_of(maps, [_batch([1] * 8, (1.0, 1.0, 2.0))], 2, window_mm=4.0, stride=(1, 1, 2))
    assert by_class(wider, 2)[1].flatten().tolist() == [1.0, 3.0, 5.0, 7.0, 4.0]


def test_a_bank_grows_to_its_limit_and_no_further() -> None:
    parts = [{"prototypes/class_0": torch.arange(3.0)[:, None]}, {"prototypes/class_0": torch.arange(3.0, 6.0)[:, None]}]
    few, all_ = (thinned(parts, n, torch.Generator().manual_seed(0))["prototypes/class_0"].flatten().tolist() for n in (4, 9))
    assert all_ == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(few) == 4 and few == sorted(set(few)) and set(few) < set(all_)


def test_a_site_keeps_the_teachers_weights_and_prototypes_of_its_own(record: Record) -> None:
    outcome = record(PLAIN).outcome
    teacher, *sites = (outcome.tensors(model.split(".")[0]) for model in sorted(outcome.models, reverse=True))
    assert len(sites) == 3
    for site in sites:
        assert all(np.array_equal(site[key], value) for key, value in teacher.items())
        assert (site["prototypes/counts"] > 0).all()
    assert len({site["prototypes/sums"].tobytes() for site in sites}) == 3


def test_nothing_travels_but_the_teacher(record: Record) -> None:
    told = record(PLAIN).outcome.table("transfers")[["round", "direction", "kind"]].values.tolist()
    assert told == [[-1, "down", "teacher"]] * 3


def test_later_rounds_look_at_further_patches(record: Record) -> None:
    once, twice = record(PLAIN, "federation.rounds=1").outcome, record(PLAIN).outcome
    name = sorted(once.models)[0].split(".")[0]
    assert twice.tensors(name)["prototypes/counts"].sum() == pytest.approx(2 * once.tensors(name)["prototypes/counts"].sum())


def test_shared_prototypes_are_of_all_sites_in_all_rounds(record: Record, tensors_in: TensorsIn) -> None:
    recording = record(SHARED)
    sent = [tensors_in(reply.upload) for reply in recording.replies]
    assert [set(upload) for upload in sent] == [{"prototypes/sums", "prototypes/counts"}] * 6
    found = recording.outcome.tensors("global")
    for key in ("prototypes/sums", "prototypes/counts"):
        np.testing.assert_allclose(found[key], sum(upload[key].astype(np.float64) for upload in sent), rtol=1e-5, atol=1e-4)
    up = recording.outcome.table("transfers").query("direction == 'up'")
    assert up["num_values"].unique().tolist() == [3 * 8 + 3]


def test_a_site_without_labels_has_the_teachers_head_or_the_prototypes_of_the_others(record: Record) -> None:
    own = record(PLAIN, UNLABELLED).outcome.table("cases").query("client_id == 0 and round == 1").set_index("model")["dsc"]
    assert own["personal"].tolist() == own["teacher"].tolist()
    shared = record(SHARED, UNLABELLED).outcome
    counts = {name: shared.tensors(name.split(".")[0]).get("prototypes/counts") for name in shared.models if "personal" in name}
    assert len(counts) == 3 and all(count is not None and (count > 0).any() for count in counts.values())


def test_local_prototypes_are_not_added_up(record: Record) -> None:
    with pytest.raises(RaykdError, match="choose prototypes: mean"):
        record("method={name: proto_shot, shared: true, prototypes: local}")


def test_a_site_with_a_network_of_its_own_is_refused(record: Record) -> None:
    with pytest.raises(RaykdError, match="uses the teacher's network at every site"):
        record(PLAIN, "clients[0].student={network: {name: unet, width: 4}}")


QUICK = "start: cold, teacher: frozen, trust: false, num_passes: 0, response: none, feature: none"
ONE_ROUND = ("federation.rounds=1", "federation.participation=0.34")


def test_the_prototype_term_is_there_where_it_has_a_weight(record: Record) -> None:
    plain, weighed = (
        record(f"method={{name: dual_kd, {QUICK}, prototype_weight: {weight}}}", *ONE_ROUND).outcome.table("training")
        for weight in (0, 0.1)
    )
    assert "loss_prototype" not in plain
    assert (weighed["loss_prototype"] > 0).all()
    assert (weighed["loss_total"] > plain["loss_total"]).all()
