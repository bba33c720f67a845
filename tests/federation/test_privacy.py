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
from raykd.federation.accountant import epsilon, epsilon_replace_one
from raykd.federation.privacy import ProtectedSum, check_delta, spent_by
from raykd.federation.private_training import patients, poisson_batches, private_gradients, sampling
from raykd.launch import Plan, check_plans
from raykd.methods._base import Upload
from raykd.numerics.gaussian_mechanism import norm_of
from raykd.numerics.local_sgd import Batch, Schedule, local_sgd
from raykd.numerics.params import weighted_mean
from raykd.numerics.rng import generator
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.scenario.errors import DataError, ScenarioError
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


def _delta(epsilon: float, noise_multiplier: float) -> float:
    """The smallest delta of one release: Balle and Wang, ICML 2018, Theorem 8, as it stands there."""
    upper, lower = (sign / (2 * noise_multiplier) - epsilon * noise_multiplier for sign in (1, -1))
    return 0.5 * math.erfc(-upper / math.sqrt(2)) - math.exp(epsilon) * 0.5 * math.erfc(-lower / math.sqrt(2))


@pytest.mark.parametrize(("z", "k", "delta"), [(1.0, 1, 1e-5), (2.0, 10, 1e-5), (1.0, 5, 1e-2), (0.5, 2, 1e-3), (20.0, 1, 1e-5)])
def test_epsilon_without_sampling_is_exact(z: float, k: int, delta: float) -> None:
    """k releases are one at z / sqrt(k); replacing one is twice as far: half the multiplier."""
    there, another = epsilon(z, 1.0, k, delta), epsilon_replace_one(z, 1.0, k, delta)
    assert there is not None and another is not None and there < another == epsilon(z / 2, 1.0, k, delta)
    assert _delta(there, z / math.sqrt(k)) == pytest.approx(delta, rel=1e-6)
    assert _delta(another, z / 2 / math.sqrt(k)) == pytest.approx(delta, rel=1e-6)


def test_epsilons_of_the_page_on_privacy() -> None:
    """Five rounds at multiplier 1 and delta 1e-2: 19.6 of replacing an update, where against none at all it is 7.0."""
    assert (epsilon(1.0, 1.0, 5, 1e-2), epsilon_replace_one(1.0, 1.0, 5, 1e-2)) == pytest.approx((7.0246, 19.6037), abs=1e-4)


@pytest.mark.parametrize(("z", "k"), [(1.0, 1), (2.0, 10), (0.5, 5)])
def test_opacus_bounds_the_exact_epsilon(z: float, k: int) -> None:
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(z, 1.0, k)]
    exact, bound = epsilon(z, 1.0, k, 1e-5), accountant.get_epsilon(delta=1e-5)
    assert exact is not None and 0.85 * bound < exact < bound


def test_limits_of_epsilon() -> None:
    for spent in (epsilon, epsilon_replace_one):
        assert spent(2.0, 1.0, 0, 1e-5) == 0.0 and spent(0.0, 1.0, 1, 1e-5) is None and spent(1e6, 1.0, 1, 1e-5) == 0.0
        assert spent(1.0, 0.999999, 3, 1e-5) == pytest.approx(spent(1.0, 1.0, 3, 1e-5), rel=1e-9), "sampling is never worse"


@pytest.mark.parametrize(("z", "q", "k"), [(1.0, 0.1, 100), (1.5, 0.04, 2250), (4.0, 0.5, 10)])
def test_replacing_a_sampled_patient_is_removing_and_adding(z: float, q: float, k: int) -> None:
    """(e, d) against either is (2 e, (1 + exp(e)) d) against both, one after the other."""
    another = epsilon_replace_one(z, q, k, 1e-5)
    assert another is not None
    assert another / 2 == pytest.approx(epsilon(z, q, k, 1e-5 / (1 + math.exp(another / 2))), rel=1e-6)
    assert another > 2 * (epsilon(z, q, k, 1e-5) or 0)


@pytest.mark.parametrize(
    ("mechanism", "neighbours"), [("upload", "replace_one"), ("sum", "add_or_remove"), ("records", "add_or_remove")]
)
def test_the_epsilon_that_is_told_is_that_of_the_neighbours_that_apply(mechanism: str, neighbours: str) -> None:
    spent = spent_by(mechanism, 1.0, 1.0, 5, 1e-2)
    assert spent["neighbours"] == neighbours and spent["epsilon"] == spent[f"epsilon_{neighbours}"]
    assert (spent["epsilon_add_or_remove"], spent["epsilon_replace_one"]) == pytest.approx((7.0246, 19.6037), abs=1e-4)


def test_a_delta_that_lets_one_patient_out_is_refused(load: Callable[..., Any]) -> None:
    cases = [_case(str(n), f"p{n % 4}") for n in range(8)]
    delta = "privacy={records: {max_grad_norm: 1, noise_multiplier: 1, delta: "
    check_delta(load(FEDAVG, delta + "0.24}}"), "a", cases)
    check_delta(load(FEDAVG, delta + "0.99}}"), "a", cases[:1])
    check_delta(load(FEDAVG), "a", cases)
    with pytest.raises(DataError, match=r"a: privacy.records.delta must be below 1 / 4, .* labelled patients, got 0.25"):
        check_delta(load(FEDAVG, delta + "0.25}}"), "a", cases)


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
    # Everybody sees that it uploaded, and each upload is clipped to half of what two of them may lie apart.
    assert set(of_one["neighbours"]) == {"replace_one"}
    assert of_one["epsilon"].tolist() == [epsilon(1.0, 1.0, 1, 1e-5), epsilon(1.0, 1.0, 2, 1e-5)]
    assert of_one["epsilon_add_or_remove"].tolist() == [epsilon(2.0, 1.0, 1, 1e-5), epsilon(2.0, 1.0, 2, 1e-5)]


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
        ([FEDAVG, "privacy={client: {clip_norm: 1, noise_multiplier: 1, delta: 0.34}}"],
         "privacy.client.delta: must be below 1 / 3, one over the number of sites, got 0.34"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_with_a_sentence(
    words: list[str], told: str, load: Callable[..., Any], tmp_path: Any
) -> None:
    with pytest.raises(ScenarioError, match=told):
        scenario = load(*words)
        check_plans([Plan(tmp_path / "run", "m", scenario, tmp_path)])
