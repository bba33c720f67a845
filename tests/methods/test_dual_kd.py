"""The reference method, by what it does in public.

"Row n" is a decision on an oddity of the reference code: table A11 of the notes on methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raykd.data.case import Case
from raykd.data.federation import build_client_data
from raykd.data.patches import normalise
from raykd.federation.evaluation import case_rows
from raykd.federation.inference import soft_label
from raykd.launch import Plan, launch
from raykd.methods._base import LocalUpdate
from raykd.methods.fedavg import FedAvg
from raykd.models._base import build_network, set_dropout_only_training
from raykd.models.unet import UNet
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload
from raykd.numerics.rng import generator
from raykd.scenario.registry import METHODS, NETWORKS

Record = Callable[..., Any]
Load = Callable[..., Any]
TensorsIn = Callable[[Any], dict[str, np.ndarray]]
EQUAL_NETWORKS = "student.network={name: unet, width: 8}"
FROZEN = "method={name: dual_kd, teacher: frozen, trust: false, num_passes: 4}"
FROZEN_DUAL = FROZEN.replace("}", ", response: kl, feature: region_affinity}")
OFF = "response: none, feature: none, teacher: frozen, trust: false, num_unlabelled: 0"


# Limits.


def test_without_response_features_and_warmth_it_is_federated_averaging(record: Record) -> None:
    limit = record(f"method={{name: dual_kd, start: cold, {OFF}}}").outcome
    averaged = record("method={name: fedavg}").outcome
    assert all(limit.models[name] == model for name, model in averaged.models.items())
    assert limit.table("training")["loss_total"].tolist() == averaged.table("training")["loss_total"].tolist()


def test_without_response_and_features_but_warm_it_is_finetuning_of_the_student(record: Record) -> None:
    limit = record(f"method={{name: dual_kd, start: warm, {OFF}}}").outcome.models
    tuned = record("method={name: finetune, network: student}").outcome.models
    assert limit["global.safetensors"] == tuned["global.safetensors"]


@pytest.mark.parametrize(
    ("weightless", "same"),
    [
        ("feature: none, response_weight: 0.0, response: kl", "feature: none, response_weight: 0.0, response: softmax_mse"),
        ("response: none, feature_weight: 0.0, feature: attention", "response: none, feature_weight: 0.0, feature: pairwise"),
    ],
    ids=["response", "feature"],
)
def test_a_term_of_weight_zero_teaches_nothing(record: Record, weightless: str, same: str) -> None:
    """What is attached to a case may move its patches, so terms of weight zero are compared with one another."""
    models = [
        record(f"method={{name: dual_kd, teacher: frozen, trust: false, num_passes: 0, {settings}}}").outcome.models
        for settings in (weightless, same)
    ]
    assert models[0]["global.safetensors"] == models[1]["global.safetensors"]


@pytest.mark.parametrize("term", ["response", "feature"])
def test_each_distillation_term_changes_the_student(record: Record, term: str) -> None:
    both = record(FROZEN_DUAL).outcome.models["global.safetensors"]
    name = {"response": "kl", "feature": "region_affinity"}[term]
    without = record(FROZEN_DUAL.replace(f"{term}: {name}", f"{term}: none")).outcome.models["global.safetensors"]
    assert both != without


def test_paper_intent_refuses_networks_of_unequal_width_with_a_sentence_each(load: Load) -> None:
    scenario = load("method={name: dual_kd, preset: paper-intent}")
    ema, channel_kl = METHODS.get("dual_kd")(scenario.method, scenario).problems()
    assert "ema" in ema and "one network" in ema
    assert "channel_kl" in channel_kl and "one network" in channel_kl


def test_paper_intent_accepts_equal_networks(load: Load) -> None:
    scenario = load("method={name: dual_kd, preset: paper-intent}", EQUAL_NETWORKS)
    assert METHODS.get("dual_kd")(scenario.method, scenario).problems() == []


# The teacher's schedule.


@pytest.fixture(scope="module")
def ema(record: Record) -> Any:
    """Three rounds of paper-intent whose teachers move from round 1 on."""
    method = "method={name: dual_kd, preset: paper-intent, ema_start_round: 1, num_passes: 0}"
    return record(method, EQUAL_NETWORKS, "federation.rounds=3")


def _teacher_after(reply: Any, sent: Any, tensors_in: TensorsIn) -> dict[str, np.ndarray]:
    """The site's teacher after a round: what it keeps, else what it was handed."""
    kept = {key: value for key, value in tensors_in(reply.state).items() if key.startswith("teacher/")}
    return kept or tensors_in(sent)


def test_row_1_before_its_start_round_the_teacher_stays_as_it_was_sent(ema: Any, tensors_in: TensorsIn) -> None:
    _, _, replies = ema.rounds[0]
    for reply in replies:
        sent, after = tensors_in(ema.teacher), _teacher_after(reply, ema.teacher, tensors_in)
        assert all(np.array_equal(after[key], value) for key, value in sent.items())


def test_rows_1_and_2_from_its_start_round_on_the_teacher_moves_by_r_of_R_once_a_round(ema: Any, tensors_in: TensorsIn) -> None:
    """theta_T <- (1 - r/3) theta_T + r/3 theta_S with the received student, in rounds 1 and 2."""
    teacher = tensors_in(ema.teacher)
    for r in (1, 2):
        _, download, replies = ema.rounds[r]
        student = tensors_in(download)
        teacher = {
            key: (1 - r / 3) * value.astype(np.float64) + r / 3 * student["params/" + key.removeprefix("teacher/")]
            for key, value in teacher.items()
        }
        for reply in replies:
            after = _teacher_after(reply, ema.teacher, tensors_in)
            assert after.keys() == teacher.keys()
            for key, value in teacher.items():
                np.testing.assert_allclose(after[key], value, rtol=0, atol=1e-6, err_msg=key)


def test_row_2_the_preset_of_this_toolkit_never_mixes_the_student_into_the_teacher(load: Load) -> None:
    assert load("method={name: dual_kd}").method.get("teacher") != "ema"


def test_a_frozen_teacher_is_kept_nowhere(record: Record) -> None:
    assert [reply.state for reply in record(FROZEN).replies] == [{}] * 6


def test_row_18_a_sites_state_follows_the_site_and_not_the_worker(record: Record) -> None:
    """With two of three sites a round, each site finds what it left behind itself."""
    method = "method={name: dual_kd, preset: paper-intent, ema_start_round: 0, num_passes: 0}"
    recording = record(method, EQUAL_NETWORKS, "federation={rounds: 5, participation: 0.67}")
    left: dict[int, bytes] = {}
    num_returns = 0
    for jobs, _, replies in recording.rounds:
        assert len(jobs) == 2
        for job in jobs:
            if job.client_id in left:
                num_returns += 1
                assert job.state["teacher"].tobytes() == left[job.client_id]
        left |= {reply.client_id: reply.state["teacher"].tobytes() for reply in replies}
    assert num_returns >= 4
    assert len(set(left.values())) > 1


def test_row_26_the_teacher_goes_down_once_and_never_up(record: Record) -> None:
    transfers = record(FROZEN).outcome.table("transfers").query("kind == 'teacher'")
    found = transfers[["round", "client_id", "direction"]].values.tolist()
    assert found == [[-1, 0, "down"], [-1, 1, "down"], [-1, 2, "down"]]


# What the teacher says.


@pytest.fixture
def teacher_passes(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[int, tuple[int, int]]]:
    """Runs a method with an empty cache and gives, by round, volumes through the teacher for logits and calls for features."""
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))
    counts: dict[int, tuple[int, int]] = {}
    now: list[int | None] = [None]

    def counting(name: str, num_volumes: int, num_calls: int) -> None:
        real = getattr(UNet, name)

        def forward(self: UNet, image: Tensor, *rest: Any) -> Any:
            if now[0] is not None and self.settings.width == 8:
                volumes, calls = counts[now[0]]
                counts[now[0]] = (volumes + num_volumes * len(image), calls + num_calls)
            return real(self, image, *rest)

        monkeypatch.setattr(UNet, name, forward)

    counting("forward", 1, 0)
    counting("forward_with_features", 0, 1)

    def progress(event: str, **values: Any) -> None:
        if event in ("round", "stage"):
            now[0] = values.get("round")
        if event == "round":
            counts[values["round"]] = (0, 0)

    def run(method: str) -> dict[int, tuple[int, int]]:
        counts.clear()
        number = len(list(tmp_path.iterdir()))
        launch([Plan(tmp_path / f"run-{number}", "dual_kd", load(method), tmp_path)], backend="in-process", progress=progress)
        return dict(counts)

    return run


def test_row_28_a_frozen_teacher_is_asked_once_for_each_case_of_the_run(
    teacher_passes: Callable[[str], dict[int, tuple[int, int]]],
) -> None:
    """16 windows of six training cases, four stochastic passes; 8 clean ones of windows side by side; all in the first round."""
    assert teacher_passes(FROZEN_DUAL) == {0: (4 * 16, 8), 1: (0, 0)}


def test_row_28_the_number_of_passes_is_a_setting(teacher_passes: Callable[[str], dict[int, tuple[int, int]]]) -> None:
    assert teacher_passes(FROZEN_DUAL.replace("num_passes: 4", "num_passes: 6"))[0] == (6 * 16, 8)


def test_row_28_what_a_teacher_said_is_read_from_the_cache_in_the_next_run(
    teacher_passes: Callable[[str], dict[int, tuple[int, int]]],
) -> None:
    teacher_passes(FROZEN)
    assert teacher_passes(FROZEN) == {0: (0, 0), 1: (0, 0)}


def _network(dropout: float) -> UNet:
    settings = UNet.Settings(name="unet", width=4, strides=((2, 2, 2),), dropout=dropout)
    network = build_network(settings, 3, seed=0)
    assert isinstance(network, UNet)
    return network


IMAGE = torch.linspace(-1, 1, 8 * 8 * 8).reshape(8, 8, 8)


def test_row_5_only_dropout_is_random_in_a_stochastic_pass() -> None:
    network = _network(dropout=0.5)
    network.train()
    set_dropout_only_training(network)
    modes = {type(module).__name__: module.training for module in network.modules() if not list(module.children())}
    assert modes["Dropout"] or modes["Dropout3d"]
    assert [name for name, is_training in modes.items() if is_training and "Dropout" not in name] == []


def test_row_5_the_target_is_the_mean_of_the_noisy_passes() -> None:
    """Every pass is overheard: its noise is clipped at two deviations, and the mean of what was said is the target."""
    network, passes = _network(dropout=0.5), []
    network.register_forward_hook(lambda module, inputs, output: passes.append((inputs[0], output.clone())))
    said = soft_label(network, IMAGE, num_passes=4, input_noise=0.1, rng=generator(0, "noise"))
    noise = torch.cat([image for image, _ in passes])[:, 0] - IMAGE
    assert len(noise) == 4
    assert len(noise.unique(dim=0)) == 4
    assert 0.15 < float(noise.abs().max()) <= 0.2 + 1e-6
    torch.testing.assert_close(said, torch.softmax(torch.cat([logits for _, logits in passes]), dim=1).mean(dim=0))


def test_row_5_without_noise_and_dropout_every_pass_says_the_same() -> None:
    network = _network(dropout=0.0)
    clean = soft_label(network, IMAGE, num_passes=0, input_noise=0.0, rng=generator(0, "noise"))
    many = soft_label(network, IMAGE, num_passes=4, input_noise=0.0, rng=generator(0, "noise"))
    torch.testing.assert_close(many, clean)
    torch.testing.assert_close(clean.sum(dim=0), torch.ones(8, 8, 8))


def test_row_5_dropout_makes_the_passes_differ_and_takes_nothing_from_the_global_generator() -> None:
    network, before = _network(dropout=0.5), torch.get_rng_state()
    one, other, again = (
        soft_label(network, IMAGE, num_passes=2, input_noise=0.0, rng=generator(seed, "noise")) for seed in (0, 1, 0)
    )
    assert not torch.equal(one, other)
    assert torch.equal(one, again)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NETWORKS.names())
def test_rows_4_and_6_no_network_has_running_statistics(name: str) -> None:
    network = build_network(NETWORKS.get(name).Settings(name=name), 3, seed=0)
    assert [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)] == []
    assert network.state_dict().keys() == dict(network.named_parameters()).keys()


# The streams.


def _streams(record: Record, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Batch]]:
    """Batches of whole volumes that sites were given, four steps of two labelled and two unlabelled patches."""
    seen: list[tuple[int, Batch]] = []

    def local_update(self: Any, context: Any, state: Payload, download: Payload) -> LocalUpdate:
        def spy(model: Any, batch: Batch) -> dict[str, Tensor]:
            seen.append((context.client_id, batch))
            return {"supervised": model(batch.image_BCIJK).square().mean()}

        params, result = context.fit(download, spy, num_unlabelled=2)
        return LocalUpdate(state, params, result)

    monkeypatch.setattr(FedAvg, "local_update", local_update)
    whole = "training={num_local_steps: 4, batch_size: 2, patch_shape: [20, 32, 32], augmentation: {flip: [0, 0, 0]}}"
    record("method={name: fedavg}", whole, "clients[0].source.num_cases=5", "federation.rounds=1", fresh=True)
    yield from seen


def test_row_14_the_unlabelled_stream_holds_every_unlabelled_case_of_the_site_and_no_other(
    record: Record, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = list(_streams(record, monkeypatch))
    scenario = load("clients[0].source.num_cases=5")
    for member in scenario.members():
        data = build_client_data(scenario, member, Path.cwd())
        i, j, k = data.labelled[0].shape
        allowed = {normalise(case.image_CIJK).numpy().tobytes() for case in data.unlabelled}
        batches = [batch for client_id, batch in streams if client_id == member.client_id]
        assert len(batches) == 4
        drawn = {
            patch[0, :i, :j, :k].contiguous().numpy().tobytes()
            for batch in batches
            for patch in batch.image_BCIJK[batch.num_labelled :]
        }
        assert drawn == allowed


def test_row_14_splits_of_a_site_share_no_case_and_no_other_sites_case(load: Load) -> None:
    scenario = load("clients[0].source.num_cases=5", "clients[0].num_validation=1")
    names: list[str] = []
    for member in scenario.members():
        data = build_client_data(scenario, member, Path.cwd())
        names += [case.case_id for case in data.labelled + data.unlabelled + data.validation + data.test]
        assert all(case.label_IJK is None for case in data.unlabelled)
    assert len(names) == 5 + 5 + 3
    assert len(set(names)) == len(names)


def test_row_15_unlabelled_cases_are_counted_and_not_assumed(record: Record) -> None:
    """Five cases less one labelled and one for the test leave three; three leave one."""
    clients = record("method={name: teacher_only}", "clients[0].source.num_cases=5").outcome.table("clients")
    assert clients["num_unlabelled"].tolist() == [3, 3, 1]


# Scores.


def _scores(load: Load, predicted: Tensor, reference: Tensor) -> dict[int, dict[str, Any]]:
    """By class, the row of a case with voxels of 4 x 0.5 x 0.5 mm."""
    case = Case("case", "patient", torch.zeros(1, 8, 8, 8), reference, np.diag([4.0, 0.5, 0.5, 1.0]))
    rows = case_rows(load(), case, predicted, split="test", model="global", round_index=0, client_id=0, has_surface=True)
    return {row["class_index"]: row for row in rows}


def _block(first: int, last: int) -> Tensor:
    """Class 1 in the slices first to last along I, and one voxel of class 2."""
    label = torch.zeros(8, 8, 8, dtype=torch.uint8)
    label[first : last + 1, 2:6, 2:6] = 1
    label[0, 0, 0] = 2
    return label


def test_row_20_distances_and_volumes_are_in_millimetres_of_the_voxels_own_edges(load: Load) -> None:
    """A block one slice too far along I is 4 mm off; it has 2 * 4 * 4 voxels of 1 mm^3."""
    row = _scores(load, _block(4, 5), _block(3, 4))[1]
    assert row["hd95_mm"] == pytest.approx(4.0)
    assert row["volume_ref_mm3"] == pytest.approx(32.0)
    assert row["dsc"] == pytest.approx(0.5)


def test_row_21_a_missed_class_is_as_far_off_as_the_image_is_large(load: Load) -> None:
    """Edges of 32, 4 and 4 mm."""
    missed = _block(3, 4)
    missed[missed == 1] = 0
    row = _scores(load, missed, _block(3, 4))[1]
    assert (row["dsc"], row["nsd"]) == (0.0, 0.0)
    assert row["hd95_mm"] == row["assd_mm"] == pytest.approx(math.sqrt(32**2 + 4**2 + 4**2))
