"""Differential privacy of sites and of patients: what noise does to a run, what it costs, what it cannot be had for."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raykd.data.case import Case
from raykd.data.patches import training_case
from raykd.federation.accountant import epsilon
from raykd.federation.privacy import ProtectedSum
from raykd.federation.private_training import patients, poisson_batches, private_gradients, sampling
from raykd.launch import Plan, check_plans
from raykd.methods._base import Upload
from raykd.numerics.gaussian_mechanism import norm_of
from raykd.numerics.local_sgd import Batch, Schedule, local_sgd
from raykd.numerics.params import weighted_mean
from raykd.numerics.rng import generator
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.scenario.errors import ScenarioError
from raykd.scenario.privacy import ClientPrivacy, RecordPrivacy
from raykd.scenario.training import Augmentation

pytest.importorskip("opacus")
FEDAVG = "method={name: fedavg}"
UPLOADS = "privacy={client: {clip_norm: 1.0, noise_multiplier: 2.0}}"
ON_THE_SUM = "privacy={client: {clip_norm: 1.0, noise_multiplier: 2.0, where: server}}"
PATIENTS = "privacy={records: {max_grad_norm: 1.0, noise_multiplier: 1.0}}"


def test_epsilon_is_the_example_value_of_opacus() -> None:
    """tests/accountants_test.py of https://github.com/meta-pytorch/opacus: sigma 1.5, q 0.04, 90 / 0.04 steps, delta 1e-5."""
    assert epsilon(1.5, 0.04, 2250, 1e-5) == pytest.approx(7.32911117143, rel=1e-9)


def test_epsilon_without_sampling_is_the_one_derived_by_hand() -> None:
    """k releases at multiplier z have Rényi divergence k alpha / (2 z^2); converted by (Balle et al., AISTATS 2020) at the best
    order of a fine grid."""
    k, z, delta = 10, 2.0, 1e-5
    orders = [1 + i / 100 for i in range(10, 6000)]
    best = min(k * a / (2 * z * z) + math.log((a - 1) / a) - (math.log(delta) + math.log(a)) / (a - 1) for a in orders)
    assert epsilon(z, 1.0, k, delta) == pytest.approx(best, rel=1e-3)
    assert epsilon(z, 1.0, 0, delta) == 0.0 and epsilon(0.0, 1.0, 1, delta) is None


def test_no_noise_and_a_large_norm_leave_a_run_as_it_is(record: Callable[..., Any]) -> None:
    plain = record(FEDAVG).outcome
    for where in ("client", "server"):
        off = f"privacy={{client: {{clip_norm: 1.0e9, noise_multiplier: 0, where: {where}}}}}"
        assert record(FEDAVG, off).outcome.models == plain.models
    assert record(FEDAVG, off).outcome.table("privacy")["epsilon"].isna().all()


def test_an_upload_lies_within_the_norm_of_what_was_received(record: Callable[..., Any], tensors_in: Callable[..., Any]) -> None:
    recording = record(FEDAVG, "privacy={client: {clip_norm: 0.25, noise_multiplier: 0}}")
    for _, download, replies in recording.rounds:
        received = tensors_in(download)
        for reply in replies:
            moved = {k: torch.tensor(v).double() - torch.tensor(received[k]).double() for k, v in tensors_in(reply.upload).items()}
            assert norm_of(moved) == pytest.approx(0.25, rel=1e-5)
    norms = recording.outcome.table("privacy")["update_norm"]
    assert (norms > 0.25).all()


def test_the_books_count_every_round(record: Callable[..., Any]) -> None:
    books = record(FEDAVG, UPLOADS).outcome.table("privacy")
    of_one = books[books["client_id"] == 1]
    assert of_one["num_releases"].tolist() == [1, 2]
    assert of_one["epsilon"].tolist() == [epsilon(2.0, 1.0, 1, 1e-5), epsilon(2.0, 1.0, 2, 1e-5)]


@pytest.mark.parametrize("words", [UPLOADS, ON_THE_SUM, PATIENTS], ids=["uploads", "sum", "patients"])
def test_a_resumed_run_draws_the_same_noise_and_goes_on_counting(
    words: str,
    load: Callable[..., Any],
    record: Callable[..., Any],
    cut_and_resumed: Callable[..., Any],
    assert_same_tables: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Cut off in its second round and gone on with: every table, epsilon included, and every model, byte for byte."""
    scenario = load(FEDAVG, words)
    straight, resumed = record(FEDAVG, words).outcome, cut_and_resumed(scenario, tmp_path / "run")
    assert_same_tables(straight, resumed)
    assert straight.models == resumed.models
    books = resumed.table("privacy").query("client_id == 1")
    assert books["round"].tolist() == [0, 1] and books["num_releases"].iloc[1] == 2 * books["num_releases"].iloc[0]
    assert 0 < books["epsilon"].iloc[0] < books["epsilon"].iloc[1] < math.inf


def test_noise_on_the_sum_is_that_of_one_release_however_many_clients(load: Callable[..., Any]) -> None:
    """Five updates of zero: the noise of their sum has standard deviation z C, not five times or sqrt(5) times that."""
    still = {"params/a": torch.zeros(50_000)}
    uploads = [Upload(client_id, still, 1, 0) for client_id in range(5)]
    words = ClientPrivacy(clip_norm=2.0, noise_multiplier=1.5, where="server")
    noisy = ProtectedSum(load(FEDAVG), words, uploads, lambda client_id: still, 0)
    mean = weighted_mean((upload.payload for upload in noisy), [1.0] * 5)
    assert float(5 * mean["params/a"].std()) == pytest.approx(3.0, rel=0.02)
    assert torch.equal(noisy[3].payload["params/a"], noisy[3].payload["params/a"])


def _batches(num: int) -> list[Batch]:
    rng = generator(0, "test-batches")
    image = torch.randn(num, 4, 1, 4, 4, 4, generator=rng)
    label = torch.randint(0, 3, (num, 4, 4, 4, 4), generator=rng)
    return [Batch(image[i], label[i], 4) for i in range(num)]


def _trained(words: RecordPrivacy | None) -> dict[str, torch.Tensor]:
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 1))
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator(index, "test-start")))
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    gradients = private_gradients(optimiser, words, 4, 4, generator(0, "test-noise")) if words else None

    def loss(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        return {"supervised": dice_ce_loss(model(batch.image_BCIJK), batch.label_BIJK)}

    local_sgd(network, _batches(3), loss, optimiser, Schedule(0.1), gradients=gradients)
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_private_steps_without_noise_or_clipping_are_plain_ones() -> None:
    plain, private = _trained(None), _trained(RecordPrivacy(max_grad_norm=1e6, noise_multiplier=0.0))
    for name, value in plain.items():
        torch.testing.assert_close(private[name], value, rtol=1e-5, atol=1e-6)


def test_a_private_step_moves_by_the_clipping_norm_at_most() -> None:
    """Three SGD steps at rate 0.1 and momentum 0.9 of gradients of norm <= C: 0.1 C (1 + 1.9 + 2.71)."""
    start = _trained_start()
    moved = {name: value - start[name] for name, value in _trained(RecordPrivacy(max_grad_norm=0.01, noise_multiplier=0.0)).items()}
    assert 0 < norm_of(moved) <= 0.1 * 0.01 * (1 + 1.9 + 2.71) * (1 + 1e-4)


def _trained_start() -> dict[str, torch.Tensor]:
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 1))
    names = [name for name, _ in network.named_parameters()]
    shapes = [parameter.shape for parameter in network.parameters()]
    return {n: torch.randn(s, generator=generator(i, "test-start")) for i, (n, s) in enumerate(zip(names, shapes, strict=True))}


def test_patients_take_part_alone_and_as_often_as_the_accountant_assumes() -> None:
    """One patch a patient of 10 at rate 0.2: the number in a step is binomial, and a step may be empty."""
    cases = [[training_case(_case(f"c{n}", f"p{n}"))] for n in range(10)]
    drawn = poisson_batches(
        cases,
        batch_size=2,
        shape=(4, 4, 4),
        augmentation=Augmentation(flip=(0.0, 0.0, 0.0)),
        num_steps=400,
        foreground=0.0,
        rng=generator(3, "test"),
    )
    numbers = torch.tensor([float(batch.num_labelled) for batch in drawn])
    assert float(numbers.mean()) == pytest.approx(2.0, abs=3 * (1.6 / 400) ** 0.5)
    assert float(numbers.var()) == pytest.approx(1.6, rel=0.35)
    assert numbers.min() == 0


def _case(case_id: str, patient_id: str) -> Case:
    image = torch.arange(64.0).reshape(1, 4, 4, 4)
    label = torch.ones(4, 4, 4, dtype=torch.uint8)
    return Case(image_CIJK=image, label_IJK=label, affine=torch.eye(4).numpy(), case_id=case_id, patient_id=patient_id)


def test_two_scans_of_one_patient_are_one_unit() -> None:
    cases = [_case("a", "anna"), _case("b", "ben"), _case("c", "anna")]
    assert patients(cases) == [[0, 2], [1]]
    assert sampling(2, 4) == (1.0, 2) and sampling(8, 2) == (0.25, 1)


def test_a_run_with_private_steps_counts_them(record: Callable[..., Any]) -> None:
    """One labelled case a site and two steps a round: the patient is in every one of them."""
    recording = record(FEDAVG, PATIENTS)
    books = recording.outcome.table("privacy")
    assert books[books["client_id"] == 0]["num_releases"].tolist() == [2, 4]
    assert set(books["sample_rate"]) == {1.0} and set(books["unit"]) == {"patient"}
    assert recording.outcome.models != record(FEDAVG).outcome.models


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["method={name: scaffold, weighting: labelled}", "privacy={client: {clip_norm: 1, noise_multiplier: 1, where: server}}"],
         "privacy.client.where: needs equal weights"),
        (["method={name: fedproto}", "privacy={client: {clip_norm: 1, noise_multiplier: 1, where: server}}"],
         "more from uploads than their plain mean"),
        (["method={name: dual_kd}", "privacy={records: {max_grad_norm: 1, noise_multiplier: 1}}"], "dual_kd uses a site's cases"),
        (["method={name: local}", "privacy={client: {clip_norm: 1, noise_multiplier: 1}}"], "uploads nothing"),
        ([FEDAVG, "student.network={name: unet, width: 4, norm: batch}", "privacy={client: {clip_norm: 1, noise_multiplier: 1}}"],
         "give network unet norm: group"),
        ([FEDAVG, UPLOADS, "clock={step_s: 1}", "federation.schedule={name: buffered, buffer_size: 2}"],
         "must be absent where schedule is buffered: what is spent is reckoned by rounds; choose synchronous or deadline"),
        ([FEDAVG, "privacy={}"], "must have `client`, `records` or both"),
        ([FEDAVG, "privacy={client: {clip_norm: 0, noise_multiplier: 1}}"], "must be more than 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_with_a_sentence(
    words: list[str], told: str, load: Callable[..., Any], tmp_path: Any
) -> None:
    with pytest.raises(ScenarioError, match=told):
        scenario = load(*words)
        check_plans([Plan(tmp_path / "run", "m", scenario, tmp_path)])
