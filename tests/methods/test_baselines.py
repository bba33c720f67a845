"""The controls: in their limits they are one another, and each is what it says that it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from raykd.methods.fedavg import FedAvg
from raykd.scenario.labels import file_id

Record = Callable[..., Any]
FEDAVG, LOCAL = "method={name: fedavg}", "method={name: local}"
WHOLE_VOLUMES = "training={num_local_steps: 2, batch_size: 2, patch_shape: [12, 32, 32], augmentation: {flip: [0, 0, 0]}}"
"""Patches as large as a community's volumes and never mirrored: nothing is left to draw."""


@pytest.fixture
def one_client(tiny: dict[str, Any]) -> str:
    """The override that leaves a single community hospital."""
    return "clients=" + json.dumps([{**tiny["clients"][0], "count": 1}])


def _assert_close(one: dict[str, Any], other: dict[str, Any], atol: float) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_allclose(value, other[key], rtol=0, atol=atol, err_msg=key)


def test_federated_averaging_of_one_client_is_local_training(record: Record, one_client: str) -> None:
    averaged, alone = record(FEDAVG, one_client).outcome.models, record(LOCAL, one_client).outcome.models
    assert averaged["global.safetensors"] == alone["personal-community.safetensors"]


def test_pooling_one_client_is_federated_averaging_of_it(record: Record, one_client: str) -> None:
    """On whole volumes, because the pooled trainer draws patches at an address of its own."""
    pooled = record("method={name: centralised}", one_client, WHOLE_VOLUMES).outcome.models
    averaged = record(FEDAVG, one_client, WHOLE_VOLUMES).outcome.models
    assert pooled["global.safetensors"] == averaged["global.safetensors"]


def test_the_pooled_trainer_takes_as_many_steps_as_all_clients_together(record: Record) -> None:
    training = record("method={name: centralised}").outcome.table("training")
    assert training[["round", "client_id", "num_steps"]].values.tolist() == [[0, -2, 6], [1, -2, 6]]


def test_uniform_weights_give_the_plain_mean_of_the_uploads(record: Record, tensors_in: Callable[..., Any]) -> None:
    recording = record(FEDAVG)
    for (_, _, replies), (_, download, _) in zip(recording.rounds, recording.rounds[1:], strict=False):
        uploads = [tensors_in(reply.upload) for reply in replies]
        mean = {key: np.mean([upload[key] for upload in uploads], axis=0, dtype=np.float64) for key in uploads[0]}
        _assert_close(tensors_in(download), mean, atol=1e-7)


def test_labelled_weights_count_labelled_cases(record: Record, tensors_in: Callable[..., Any]) -> None:
    """The two communities have one labelled case each, the university two."""
    shots = ("clients[1].source.num_cases=4", "clients[1].labels.num_shots=2")
    recording = record("method={name: fedavg, weighting: labelled}", *shots)
    one, two, three = (tensors_in(reply.upload) for reply in recording.rounds[0][2])
    expected = {key: (one[key].astype(np.float64) + two[key] + 2.0 * three[key]) / 4 for key in one}
    _assert_close(tensors_in(recording.rounds[1][1]), expected, atol=1e-7)


def test_all_weights_count_unlabelled_cases_too(record: Record, tensors_in: Callable[..., Any]) -> None:
    """The two communities have two training cases each, the university four, of which one is labelled."""
    recording = record("method={name: fedavg, weighting: all}", "clients[1].source.num_cases=5")
    one, two, three = (tensors_in(reply.upload) for reply in recording.rounds[0][2])
    expected = {key: (2.0 * one[key].astype(np.float64) + 2.0 * two[key] + 4.0 * three[key]) / 8 for key in one}
    _assert_close(tensors_in(recording.rounds[1][1]), expected, atol=1e-7)


def test_finetuning_a_student_is_federated_averaging_from_the_student_of_the_repository(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = record("method={name: finetune, network: student}").outcome.models
    monkeypatch.setattr(FedAvg, "is_warm", property(lambda self: True))
    averaged = record(FEDAVG, fresh=True).outcome.models
    assert tuned["global.safetensors"] == averaged["global.safetensors"]


def test_finetuning_sends_the_teacher_itself_by_default(record: Record, tensors_in: Callable[..., Any]) -> None:
    recording = record("method={name: finetune}")
    sent, teacher = tensors_in(recording.rounds[0][1]), recording.outcome.tensors("teacher")
    assert sent.keys() == teacher.keys()
    assert all(np.array_equal(value, teacher[key]) for key, value in sent.items())


def test_a_warm_local_start_is_the_student_that_finetuning_starts_from(record: Record, tensors_in: Callable[..., Any]) -> None:
    alone = record("method={name: local, is_warm: true}").rounds[0][0]
    sent = tensors_in(record("method={name: finetune, network: student}").rounds[0][1])
    for job in alone:
        state = tensors_in(job.state)
        assert all(np.array_equal(value, state[key]) for key, value in sent.items())


def test_cold_students_start_alike_at_every_site(record: Record) -> None:
    states = [job.state["params"].tobytes() for job in record(LOCAL).rounds[0][0]]
    assert states == [states[0]] * 3


def test_a_site_alone_does_not_feel_the_others(record: Record, tiny: dict[str, Any]) -> None:
    with_university = record(LOCAL).outcome.models
    without = record(LOCAL, "clients=" + json.dumps(tiny["clients"][:1])).outcome.models
    assert sorted(without) == ["personal-community-0.safetensors", "personal-community-1.safetensors"]
    assert all(with_university[name] == model for name, model in without.items())


def test_models_of_sites_are_filed_under_ids_made_of_their_names(record: Record) -> None:
    models = record(LOCAL, "federation.rounds=1", "clients[0].group=大阪", "clients[1].group=left kidney").outcome.models
    assert set(models) == {f"personal-{file_id(name)}.safetensors" for name in ("大阪-0", "大阪-1", "left kidney")}


def test_a_federated_site_does_feel_the_others(record: Record, tiny: dict[str, Any]) -> None:
    without = record(FEDAVG, "clients=" + json.dumps(tiny["clients"][:1])).outcome.models
    assert record(FEDAVG).outcome.models["global.safetensors"] != without["global.safetensors"]


def test_teacher_only_scores_the_teacher_that_other_methods_hand_out(record: Record) -> None:
    alone = record("method={name: teacher_only}").outcome.table("cases")
    assert alone["model"].astype(str).unique().tolist() == ["teacher"]
    handed = record("method={name: dual_kd, num_passes: 0}").outcome.table("cases").query("model == 'teacher' and round == -1")
    columns = ["client_id", "case_id", "class_index", "volume_pred_mm3", "dsc"]
    assert alone.query("round == -1")[columns].values.tolist() == handed[columns].values.tolist()


def test_a_site_alone_that_diverges_is_told(record: Record) -> None:
    outcome = record(LOCAL, "clients[1].training={learning_rate: 1e30}").outcome
    assert (outcome.table("events")["client_id"] == 2).any()


def test_the_pooled_trainer_reads_every_patch_as_its_own_site_outlined_it() -> None:
    """Two patches of one voxel each, labelled background: by a site that outlines both classes and by one that outlines the first.
    The second site's background is 'not the first class': probability p0 + p2."""
    import torch

    from raykd.methods._base import supervised_loss
    from raykd.numerics.local_sgd import Batch
    from raykd.numerics.segmentation_losses import dice_ce_loss

    logits = torch.tensor([[0.1, 1.0, -0.5], [0.3, -1.0, 2.0]]).reshape(2, 3, 1, 1, 1)
    label = torch.zeros((2, 1, 1, 1), dtype=torch.long)
    batch = Batch(torch.zeros((2, 1, 1, 1, 1)), label, 2, annotated=(None, (1,)))
    loss = supervised_loss(None)(lambda image: logits, batch)["supervised"]  # type: ignore[arg-type]
    expected = (dice_ce_loss(logits[:1], label[:1]) + dice_ce_loss(logits[1:], label[1:], (1,))) / 2
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert float(loss) != pytest.approx(float(dice_ce_loss(logits, label)), rel=1e-3)
