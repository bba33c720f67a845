"""What is learnt through uploaded features, and through a generator of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from raykd.federation.transport import unseal
from raykd.methods._base import ServerStart, Upload
from raykd.methods.fedgkt import FedGKT
from raykd.numerics.prototypes import cell_label
from raykd.scenario.errors import RaykdError

Record = Callable[..., Any]
TensorsIn = Callable[[Any], dict[str, np.ndarray]]
GKT, GEN = "method={name: fedgkt, num_patches: 2}", "method={name: fedgen, num_server_steps: 4, num_generated: 6}"


def _closest(one: Any, other: Any, name: str) -> float:
    a, b = one.tensors(name), other.tensors(name)
    assert a.keys() == b.keys()
    return max(float(np.abs(a[key] - b[key]).max()) for key in a)


def test_fedgkt_without_its_weight_is_each_site_alone(record: Record) -> None:
    alone, off = record("method={name: local}").outcome, record("method={name: fedgkt, num_patches: 2, alpha: 0}").outcome
    assert sorted(alone.models) == sorted(off.models)
    assert max(_closest(alone, off, model.split(".")[0]) for model in alone.models) < 1e-6


def test_fedgkt_sends_features_logits_and_labels_of_the_same_patches_in_every_round(record: Record, tensors_in: TensorsIn) -> None:
    """Patches of 8 x 16 x 16 on the grid of decoder_1, which is half as fine along J and K."""
    recording = record(GKT)
    by_client: dict[int, list[dict[str, np.ndarray]]] = {}
    for reply in recording.replies:
        by_client.setdefault(reply.client_id, []).append(tensors_in(reply.upload))
    for first, second in by_client.values():
        assert {key: value.shape for key, value in first.items()} == {
            "features/map": (2, 4, 8, 16, 16),
            "logits/client": (2, 3, 8, 16, 16),
            "control/label": (2, 8, 16, 16),
        }
        assert np.array_equal(first["control/label"], second["control/label"])
        assert not np.array_equal(first["features/map"], second["features/map"])


def test_fedgkt_answers_each_site_for_its_own_patches_from_the_second_round_on(record: Record, tensors_in: TensorsIn) -> None:
    recording = record(GKT)
    (first, _, _), (second, _, _) = recording.rounds
    assert [job.extra for job in first] == [None] * 3
    answers = [tensors_in(job.extra) for job in second]
    assert [{key: value.shape for key, value in answer.items()} for answer in answers] == [{"logits/server": (2, 3, 8, 16, 16)}] * 3
    assert len({answer["logits/server"].tobytes() for answer in answers}) == 3
    losses = recording.outcome.table("training")["loss_server"]
    assert losses[:3].isna().all() and (losses[3:] > 0).all()


def test_fedgkts_server_learns_the_labels_it_is_given(load: Record) -> None:
    """Two sites whose first channel tells the class."""
    scenario = load("method={name: fedgkt, server_epochs: 30, server_learning_rate: 0.02, server_distils: false}")
    method, rng = FedGKT(scenario.method, scenario), torch.Generator().manual_seed(0)
    uploads = []
    for client_id in range(2):
        label = torch.randint(0, 3, (2, 1, 4, 4), generator=rng).repeat_interleave(4, dim=1)
        maps = torch.stack([label.float(), *(torch.zeros(label.shape) for _ in range(3))], dim=1)
        sent = {
            "features/map": maps.half(),
            "logits/client": torch.zeros(2, 3, 4, 4, 4).half(),
            "control/label": label.to(torch.uint8),
        }
        uploads.append(Upload(client_id, sent, 1, 1))
    after = method.aggregate(method.init_server(ServerStart({}, {})), uploads, 0)
    for upload in uploads:
        said = after[f"logits/{upload.client_id}"].float().argmax(dim=1)
        assert float((said == upload.payload["control/label"]).float().mean()) > 0.9


def test_fedgkt_keeps_its_answer_to_a_site_that_stayed_away(load: Record, record: Record) -> None:
    scenario = load(GKT)
    method = FedGKT(scenario.method, scenario)
    uploads = [Upload(r.client_id, unseal(r.upload), 1, 1) for r in record(GKT).rounds[0][2]]
    once = method.aggregate(method.init_server(ServerStart({}, {})), uploads, 0)
    twice = method.aggregate(once, uploads[1:], 1)
    assert twice["logits/0"].equal(once["logits/0"])
    assert not twice["logits/1"].equal(once["logits/1"])
    assert method.download(twice, 7) == {}


def test_fedgkt_refuses_students_of_different_shapes(record: Record) -> None:
    with pytest.raises(RaykdError, match="all must train one student"):
        record(GKT, "clients[0].student={network: {name: unet, width: 8}}")


def test_a_cell_is_of_the_class_that_covers_most_and_unknown_where_half_is() -> None:
    label = torch.tensor([[[[1, 1, 2, 0, 255, 255, 2, 1]]]])
    assert cell_label(label, 3, (1, 1, 2)).flatten().tolist() == [1, 255]


def test_fedgen_without_its_weights_is_fedavg(record: Record) -> None:
    off = "method={name: fedgen, num_server_steps: 1, num_generated: 3, alpha: 0, beta: 0}"
    assert _closest(record(off).outcome, record("method={name: fedavg}").outcome, "global") < 1e-6


def test_fedgens_generator_goes_down_from_the_second_round_on_and_only_counts_go_up(record: Record, tensors_in: TensorsIn) -> None:
    recording = record(GEN)
    (_, first, replies), (_, second, _) = recording.rounds
    assert set(first) == {"params"} and set(second) == {"params", "control"}
    for reply in replies:
        upload = tensors_in(reply.upload)
        assert [key for key in upload if key.startswith("control/")] == ["control/label_counts"]
        # Two steps of two patches of 8 x 16 x 16 voxels.
        assert upload["control/label_counts"].sum() == 2 * 2 * 8 * 32 * 32
    losses = recording.outcome.table("training")
    assert losses["loss_generated"][:3].isna().all() and (losses["loss_generated"][3:] > 0).all()


def test_fedgens_weights_decay_from_round_to_round(record: Record) -> None:
    """In the second round, where generator and models are still the same, the term is half as large."""
    slow = "training.learning_rate=1e-9"
    full, half = (
        record(GEN.replace("}", f", decay: {decay}}}"), slow).outcome.table("training")["loss_latent"][3:] for decay in (1.0, 0.5)
    )
    assert half.tolist() == pytest.approx([0.5 * loss for loss in full], rel=1e-3)


def test_fedgen_counts_no_background_where_classes_are_left_out(record: Record, tensors_in: TensorsIn) -> None:
    partly = "clients[1].labels={num_shots: 1, classes: [tibial_cartilage]}"
    counts = tensors_in(record(GEN, partly).rounds[0][2][2].upload)["control/label_counts"]
    assert counts[0] == counts[1] == 0
    assert counts[2] > 0
