"""Distillation across clients: settings under which a method must be another one, its formulas by hand, and what it sends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raykd.federation.transport import unseal
from raykd.launch import Plan, check_plans
from raykd.methods._base import Method, Upload
from raykd.numerics.local_sgd import Batch, LocalResult
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.numerics.thinned_labels import restored
from raykd.scenario.errors import RaykdError
from raykd.scenario.registry import METHODS

Run = Callable[..., Any]
ONE = "federation.rounds=1"
STILL = "training.learning_rate=1e-12"
"""Nobody moves."""
SMALL = "num_cases: 3, spacing_mm: [8.0, 3.5, 3.5], field_of_view_mm: [100, 100, 100]"
ALONE = f"clients=[{{group: one, source: {{name: phantom, {SMALL}}}, num_test: 1}}]"
PARTIAL = "clients[1].labels={num_shots: 1, classes: [tibial_cartilage]}"
UNLIKE = "clients[1].student={network: {name: segresnet, width: 4, num_blocks: [1, 1]}}"


def _closest(one: Any, other: Any, name: str = "global") -> float:
    """The largest difference between two models of the same keys."""
    a, b = one.tensors(name), other.tensors(name)
    assert a.keys() == b.keys()
    return max(float(np.abs(a[key] - b[key]).max()) for key in a)


def _method(load: Callable[..., Any], *overrides: str) -> Any:
    scenario = load(*overrides)
    method: Method = METHODS.get(scenario.method.name)(scenario.method, scenario)
    return method


def _crossed(outcome: Any, direction: str) -> list[tuple[int, str]]:
    transfers = outcome.table("transfers").query(f"direction == '{direction}'")
    return sorted(set(transfers[["round", "kind"]].itertuples(index=False, name=None)))


class Bystander:
    """A context that hands a loss back instead of training with it."""

    def __init__(self, known: Any = None, annotated: tuple[int, ...] | None = None):
        self.annotated, self.num_classes, self.losses, self._known = annotated, 3, [], known
        self.batches: list[Batch] = []

    def network(self, params: Any, role: str = "student") -> Any:
        return self._known if params is None else self._known[params["params/which"].item()]

    def fit(self, start: Any, loss: Any, *, batches: Any = (), **options: Any) -> Any:
        self.losses.append(loss)
        self.batches = list(batches)
        return start, LocalResult(1, {})

    def proxy_patches(self, num_batches: int, batch_size: int = 2) -> list[Batch]:
        return [Batch(torch.zeros(batch_size, 1, 1, 1, 1), torch.zeros((0, 1, 1, 1), dtype=torch.long), 0)] * num_batches


def _always(*logits: float) -> Callable[[Tensor], Tensor]:
    """A model that says the same of every voxel."""
    return lambda image_BCIJK: torch.tensor(logits).view(1, -1, 1, 1, 1).expand(len(image_BCIJK), -1, *image_BCIJK.shape[2:])


def _voxel(label: int) -> Batch:
    return Batch(torch.zeros(1, 1, 1, 1, 1), torch.full((1, 1, 1, 1), label), 1)


# Not-true distillation


def _not_true(load: Any, label: int, *overrides: str, annotated: tuple[int, ...] | None = None, temperature: float = 1.0) -> float:
    method = _method(load, f"method={{name: fedntd, not_true_weight: 0.5, temperature: {temperature}}}", *overrides)
    context = Bystander(_always(1.0, 2.0, 4.0), annotated)
    method.local_update(context, {}, None)
    return float(context.losses[0](_always(0.0, 3.0, 1.0), _voxel(label))["not_true"])


def _kl(*pairs: tuple[float, float]) -> float:
    """KL(softmax of the first scores || softmax of the second)."""
    p, q = ([math.exp(pair[i]) for pair in pairs] for i in (0, 1))
    return sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))


def test_not_true_distillation_leaves_the_true_class_out(load: Any) -> None:
    assert _not_true(load, 2) == pytest.approx(0.5 * _kl((1.0, 0.0), (2.0, 3.0)), rel=1e-5)
    assert _not_true(load, 0) == pytest.approx(0.5 * _kl((2.0, 3.0), (4.0, 1.0)), rel=1e-5)


def test_not_true_distillation_softens_both_sides(load: Any) -> None:
    expected = 0.5 * 9.0 * _kl((1 / 3, 0.0), (2 / 3, 1.0))
    assert _not_true(load, 2, temperature=3.0) == pytest.approx(expected, rel=1e-5)


def test_a_patch_says_itself_which_classes_were_outlined_in_it(load: Any) -> None:
    """The same voxel of background: of a patch in which class 2 was outlined as well, and of one in which it may be class 2."""
    context = Bystander(_always(1.0, 2.0, 4.0), (1, 2))
    _method(load, "method={name: fedntd, not_true_weight: 0.5}").local_update(context, {}, None)
    whole, part = (
        float(context.losses[0](_always(0.0, 3.0, 1.0), replace(_voxel(0), annotated=(own,)))["not_true"]) for own in (None, (1,))
    )
    assert whole == pytest.approx(_not_true(load, 0), rel=1e-5)
    assert part == pytest.approx(_not_true(load, 255), rel=1e-5)


def test_conditional_distillation_is_of_the_patches_that_leave_a_class_out(load: Any) -> None:
    """Two patches alike, in the second of which class 2 was not outlined: half of what a site learns that never outlines it."""
    context: Any = Bystander(_always(1.0, 0.0, 4.0), (1, 2))
    context.round_index, context.num_rounds = 0, 1
    _method(load, "method={name: condistfl, weight: [1.0, 1.0]}").local_update(context, {}, None)
    model, one = _always(0.0, 3.0, 1.0), _voxel(0)
    two = Batch(one.image_BCIJK.repeat(2, 1, 1, 1, 1), one.label_BIJK.repeat(2, 1, 1, 1), 2)
    terms = [
        context.losses[0](model, replace(batch, annotated=own))
        for batch, own in ((one, ((1,),)), (two, (None, (1,))), (one, (None,)))
    ]
    always, half, never = (float(found["conditional"]) for found in terms)
    assert always > 0 and half == pytest.approx(always / 2, rel=1e-5) and never == 0


def test_where_nobody_knows_the_truth_the_received_model_does(load: Any) -> None:
    """Its most probable class is 2: of an unknown voxel, and of the background of a site that does not outline all."""
    without_two = 0.5 * _kl((1.0, 0.0), (2.0, 3.0))
    assert _not_true(load, 255) == pytest.approx(without_two, rel=1e-5)
    assert _not_true(load, 0, annotated=(1,)) == pytest.approx(without_two, rel=1e-5)


def test_fedntd_is_fedavg_where_its_weight_is_zero(run: Run) -> None:
    assert _closest(run("method={name: fedntd, not_true_weight: 0}", ONE), run("method={name: fedavg}", ONE)) < 1e-6


def test_the_received_model_has_nothing_to_teach_itself(run: Run) -> None:
    first = run("method={name: fedntd}", ONE, "training.num_local_steps=1").table("training")["loss_not_true"]
    assert first.abs().max() < 1e-6


def test_fedntd_refuses_a_single_class(load: Any) -> None:
    (problem,) = _method(load, "method={name: fedntd}", "classes=[femoral_cartilage]").problems()
    assert "single class" in problem and "choose fedavg" in problem


# Ensemble distillation at the server


def test_feddf_is_fedavg_where_the_server_takes_no_step(run: Run) -> None:
    assert run("method={name: feddf, num_server_steps: 0}").models == run("method={name: fedavg}").models


def test_feddf_moves_the_average_and_sends_what_fedavg_sends(run: Run) -> None:
    distilled, plain = run("method={name: feddf, num_server_steps: 2}"), run("method={name: fedavg}")
    assert _closest(distilled, plain) > 1e-4
    columns = ["round", "client_id", "direction", "kind", "num_values", "num_bytes"]
    assert distilled.table("transfers")[columns].equals(plain.table("transfers")[columns])


def test_an_ensemble_of_one_teaches_its_average_nothing(run: Run) -> None:
    """By plain gradients, which are zero; Adam would make steps of the rounding errors."""
    alone = (ALONE, "training.optimiser=sgd", ONE)
    assert _closest(run("method={name: feddf, num_server_steps: 3}", *alone), run("method={name: fedavg}", *alone)) < 1e-6


def test_the_average_learns_the_mean_score_of_those_who_know_the_class(load: Any) -> None:
    """The third site does not outline femoral cartilage, so it says nothing of that nor of the background."""
    method = _method(load, "method={name: feddf, num_server_steps: 4}", PARTIAL)
    context = Bystander([_always(1.0, 2.0, 3.0), _always(3.0, 4.0, 0.0), _always(9.0, 9.0, 6.0)])
    uploads = [Upload(index, {"params/which": torch.tensor(index)}, 1, 1) for index in range(3)]
    method.update_server(context, {}, uploads)
    assert len(context.batches) == 4
    mean = torch.tensor([2.0, 3.0, 3.0]).softmax(dim=0)
    assert all(torch.allclose(batch.soft_label_BLIJK[0, :, 0, 0, 0], mean) for batch in context.batches)
    (loss,) = context.losses
    assert float(loss(_always(2.0, 3.0, 3.0), context.batches[0])["response"]) == pytest.approx(0.0, abs=1e-6)
    said = float(loss(_always(0.0, 0.0, 0.0), context.batches[0])["response"])
    assert said == pytest.approx(_kl((2.0, 0.0), (3.0, 0.0), (3.0, 0.0)), rel=1e-5)


# Scores of public patches


def test_fedmd_is_each_site_alone_where_nothing_is_digested(run: Run) -> None:
    assert run("method={name: fedmd, digest_epochs: 0}").models == run("method={name: local}").models


def test_fedmd_sends_scores_at_half_precision_and_no_parameter(record: Run) -> None:
    """Three classes of 8 patches of (8, 32, 32), by two along J and K; the consensus comes back in the next round."""
    recording = record("method={name: fedmd}")
    outcome = recording.outcome
    assert _crossed(outcome, "up") == [(0, "logits"), (1, "logits")]
    assert _crossed(outcome, "down") == [(1, "control"), (1, "logits")]
    sent = outcome.table("transfers").query("kind == 'logits'")
    assert set(sent["num_values"]) == {3 * 8 * 8 * 16 * 16}
    assert (sent["num_bytes"] - 2 * sent["num_values"]).between(1, 500).all()


def test_a_coarser_grid_sends_the_means_of_the_finer_one(record: Run, tensors_in: Run) -> None:
    fine, coarse = (record(f"method={{name: fedmd, grid: {grid}}}", ONE) for grid in ("[1, 1, 1]", "[2, 4, 4]"))
    a, b = (tensors_in(recording.replies[0].upload)["logits/1"].astype(np.float64) for recording in (fine, coarse))
    assert a.shape == (8, 8, 32, 32) and b.shape == (8, 4, 8, 8)
    np.testing.assert_allclose(a.reshape(8, 4, 2, 8, 4, 8, 4).mean(axis=(2, 4, 6)), b, atol=2e-3)


def test_the_consensus_is_the_plain_mean_over_those_who_know_the_class(record: Run, tensors_in: Run) -> None:
    recording = record("method={name: fedmd}", PARTIAL)
    (_, _, replies), (_, download, _) = recording.rounds
    one, other, partial = (tensors_in(reply.upload) for reply in replies)
    assert set(one) == set(other) == {"logits/0", "logits/1", "logits/2"} and set(partial) == {"logits/2"}
    consensus = tensors_in(download)
    for key, heard in (("logits/0", [one, other]), ("logits/1", [one, other]), ("logits/2", [one, other, partial])):
        mean = np.mean([said[key].astype(np.float64) for said in heard], axis=0)
        np.testing.assert_allclose(consensus[key], mean, atol=1e-3)
    assert int(consensus["control/round"]) == 0


def test_a_lone_site_that_stands_still_agrees_with_itself(run: Run) -> None:
    """It scores in one round what it digests in the next: on other patches than those the difference would not be a rounding."""
    digest = run("method={name: fedmd, num_patches: 4, digest_epochs: 3}", ALONE, STILL).table("training")
    assert digest["num_steps"].tolist() == [2, 2 + 3 * 2]
    assert digest["loss_digest"].iloc[1] < 1e-3


def test_sites_draw_nearer_to_their_consensus_as_they_digest_it(run: Run) -> None:
    settings = "training.learning_rate=0.003", "training.patch_shape=[8, 16, 16]"
    epochs = [run(f"method={{name: fedmd, digest_epochs: {n}, num_patches: 2}}", *settings) for n in (1, 12)]
    once, often = (outcome.table("training").query("round == 1")["loss_digest"].mean() for outcome in epochs)
    assert often < once


def test_after_the_softmax_the_scores_are_probabilities(record: Run, tensors_in: Run) -> None:
    said = tensors_in(record("method={name: fedmd, scores: probabilities}", ONE).replies[0].upload)
    total = sum(value.astype(np.float64) for value in said.values())
    np.testing.assert_allclose(total, 1.0, atol=2e-3)
    assert min(value.min() for value in said.values()) >= 0.0


def test_a_site_without_labels_listens_and_says_nothing(record: Run) -> None:
    recording = record("method={name: fedmd}", "clients[0].labels.num_shots=0")
    training = recording.outcome.table("training").set_index(["round", "client_id"])["num_steps"]
    assert training.loc[0].tolist() == [0, 0, 2]
    assert training.loc[1].tolist() == [4, 4, 2 + 4]
    assert [bool(reply.upload) for reply in recording.rounds[1][2]] == [False, False, True]


SOME = "method={name: fedmd, kept_classes: 2, kept_share: 0.25}"


def test_where_every_class_is_kept_fedmd_learns_what_it_learns_unthinned(run: Run) -> None:
    """The consensus is a mean of half-precision numbers here as there."""
    one, other = (run(f"method={{name: fedmd{more}}}", PARTIAL) for more in ("", ", kept_classes: 3"))
    assert one.models.keys() == other.models.keys()
    assert one.table("training")["loss_digest"].iloc[-1] == pytest.approx(other.table("training")["loss_digest"].iloc[-1], rel=1e-3)


def test_fedmd_sends_some_voxels_in_a_fixed_length_up_and_down(record: Run) -> None:
    """8 patches of (8, 8, 8) cells: of a quarter, two scores of 2 bytes and two classes of 2 bits; a bit for every cell."""
    sent = record(SOME, PARTIAL).outcome.table("transfers").query("kind == 'logits'")
    assert set(sent["direction"].astype(str)) == {"up", "down"}
    assert (sent["num_bytes"] - (4096 * 4.5 + 16384 / 8)).between(1, 300).all() and sent["num_bytes"].nunique() == 1


def test_the_consensus_of_some_voxels_is_the_mean_over_those_who_sent_them(record: Run, tensors_in: Run) -> None:
    recording = record(SOME, PARTIAL)
    (_, _, replies), (_, download, _) = recording.rounds
    dense = [
        {
            name.removeprefix("logits/"): torch.from_numpy(value.copy())
            for name, value in tensors_in(envelope).items()
            if "logits" in name
        }
        for envelope in (*(reply.upload for reply in replies), download)
    ]
    *heard, (mean, is_told) = (restored(said, 3) for said in dense)
    sums, counts = sum(values for values, _ in heard), sum(is_said.float() for _, is_said in heard)
    assert int(is_told.any(dim=1).sum()) == 4096 and (counts[is_told] > 0).all()
    torch.testing.assert_close(mean[is_told], (sums / counts)[is_told], atol=1e-3, rtol=1e-3)
    of_sites = counts.amax(dim=1)
    assert of_sites[is_told.any(dim=1)].min() >= of_sites[~is_told.any(dim=1)].max()
    assert heard[2][1].any(dim=(0, 2, 3, 4)).tolist() == [False, False, True]


def test_thinned_scores_can_be_coded_and_noise_on_them_is_refused(record: Run, load: Any, tmp_path: Any) -> None:
    coded = record(SOME, "traffic={up: {logits: [{name: int8}]}}").outcome.table("transfers").query("kind == 'logits'")
    per_way = coded.groupby("direction", observed=True)["num_bytes"].first()
    assert abs(per_way["down"] - per_way["up"] - 2 * 4096) < 300  # a byte less for each value, and another header
    with pytest.raises(RaykdError, match="noise on them breaks it"):
        noisy = load(SOME, "privacy={client: {clip_norm: 1.0, noise_multiplier: 1.0}}")
        check_plans([Plan(tmp_path / "run", "fedmd", noisy, tmp_path)])


# Prototypes


def test_fedproto_is_each_site_alone_where_its_weight_is_zero(run: Run) -> None:
    assert run("method={name: fedproto, prototype_weight: 0}").models == run("method={name: local}").models


def test_fedproto_sends_a_mean_and_a_count_a_class_and_nothing_else(run: Run) -> None:
    outcome = run("method={name: fedproto}")
    assert _crossed(outcome, "up") == [(0, "prototypes"), (1, "prototypes")]
    assert _crossed(outcome, "down") == [(1, "prototypes")]
    assert set(outcome.table("transfers")["num_values"]) == {3 * (4 + 1)}


def _prototypes(*rows: tuple[float, float]) -> dict[str, Tensor]:
    """By class a mean in one channel, and a count."""
    return {"prototypes/mean": torch.tensor([[m] for m, _ in rows]), "prototypes/count": torch.tensor([c for _, c in rows])}


@pytest.mark.parametrize(("weighting", "expected"), [("clients", [2.0, 6.0, 7.0]), ("cells", [2.5, 6.0, 7.0])])
def test_a_prototype_is_the_mean_over_the_clients_that_hold_the_class(load: Any, weighting: str, expected: list[float]) -> None:
    """Class 0: 1 of one cell and 3 of three; class 1 of one client alone; class 2 of none, so that the server's stays."""
    method = _method(load, f"method={{name: fedproto, weighting: {weighting}}}")
    uploads = [
        Upload(0, _prototypes((1.0, 1.0), (6.0, 2.0), (0.0, 0.0)), 1, 0),
        Upload(1, _prototypes((3.0, 3.0), (0.0, 0.0), (0.0, 0.0)), 1, 0),
    ]
    server = method.aggregate(_prototypes((9.0, 1.0), (9.0, 1.0), (7.0, 5.0)), uploads, 3)
    assert server["prototypes/mean"].flatten().tolist() == expected
    assert server["prototypes/count"].tolist() == [4.0, 2.0, 5.0]


def test_a_partly_annotating_site_has_no_prototype_of_its_background(record: Run, tensors_in: Run) -> None:
    replies = record("method={name: fedproto}", PARTIAL, ONE).replies
    counts = [tensors_in(reply.upload)["prototypes/count"] for reply in replies]
    assert (counts[0][:2] > 0).all() and (counts[2][:2] == 0).all() and counts[2][2] > 0


def test_features_are_drawn_to_the_received_prototypes(run: Run) -> None:
    fast = ("training.learning_rate=0.003", "training.num_local_steps=6")
    weak, strong = (run(f"method={{name: fedproto, prototype_weight: {w}}}", *fast).table("training") for w in (0.001, 10))
    distance = [float(t.query("round == 1")["loss_prototype"].mean()) / w for t, w in ((weak, 0.001), (strong, 10))]
    assert distance[1] < 0.8 * distance[0]


def test_fedproto_names_sites_whose_channels_differ(run: Run) -> None:
    wide = "clients[1].student={network: {name: unet, width: 8}}"
    with pytest.raises(RaykdError, match=r"as many channels of decoder_1 at every site, got community-0 4, .*university 8"):
        run("method={name: fedproto}", wide)


def test_fedproto_names_the_layers_that_there_are(run: Run) -> None:
    with pytest.raises(RaykdError, match=r"layer: must be one of encoder_1, .*decoder_1 .*got 'encoder_9'"):
        run("method={name: fedproto, layer: encoder_9}")


@pytest.mark.parametrize("name", ["fedmd", "fedproto"])
def test_unlike_students_learn_from_each_other(run: Run, name: str) -> None:
    together, alone = run(f"method={{name: {name}}}", UNLIKE), run("method={name: local}", UNLIKE)
    keys = [set(together.tensors(f"personal-{site}")) for site in ("community-0", "university")]
    assert keys[0] != keys[1]
    assert min(_closest(together, alone, f"personal-{site}") for site in ("community-0", "university")) > 1e-4


# Mentors


def test_fedkd_is_fedavg_where_nobody_teaches_and_nothing_is_cut(run: Run) -> None:
    alone = "method={name: fedkd, response_weight: 0, feature_weight: 0, first_energy: 1, last_energy: 1}"
    assert _closest(run(alone, ONE), run("method={name: fedavg}", ONE)) < 1e-6


def test_the_mentor_stays_and_the_student_travels_in_fewer_numbers(record: Run, tensors_in: Run) -> None:
    recording = record("method={name: fedkd}")
    student = recording.outcome.tensors("global")
    size = sum(value.size for value in student.values())
    for reply in recording.replies:
        sent = tensors_in(reply.upload)
        assert sent.keys() == student.keys()
        assert sum(value.size for value in sent.values()) < 0.9 * size
    down = recording.outcome.table("transfers").query("direction == 'down'")
    assert (down.query("round == 0")["num_values"] == size).all() and (down.query("round == 1")["num_values"] < 0.9 * size).all()


def _rebuilt(packed: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """A model from flat factors, by numpy: the first M R numbers are the columns' coefficients, the others R rows."""
    model = {}
    for key, value in packed.items():
        rows, columns = base[key].shape[0], base[key][0].size
        if value.shape != base[key].shape:
            rank = value.size // (rows + columns)
            change = value[: rows * rank].reshape(rows, rank) @ value[rows * rank :].reshape(rank, columns)
            value = base[key] + change.reshape(base[key].shape)
        model[key] = value
    return model


def test_the_server_averages_what_it_can_rebuild_and_keeps_the_energy_of_the_round(record: Run, tensors_in: Run) -> None:
    """Against numpy's own decomposition: of the mean change of every kernel, 0.5 + (1 - 0.5) 0 / 2 of the energy or more is kept,
    and with one singular value fewer it would be less."""
    recording = record("method={name: fedkd, first_energy: 0.5, last_energy: 1}")
    (_, first, replies), (_, second, _) = recording.rounds
    base, sent = tensors_in(first), tensors_in(second)
    uploads = [_rebuilt(tensors_in(reply.upload), base) for reply in replies]
    cut = [key for key in base if sent[key].shape != base[key].shape]
    assert cut
    for key in cut:
        change = np.mean([model[key].astype(np.float64) for model in uploads], axis=0) - base[key]
        matrix = change.reshape(len(change), -1)
        held = np.cumsum(np.linalg.svd(matrix, compute_uv=False) ** 2)
        rank = sent[key].size // sum(matrix.shape)
        assert held[rank - 1] >= 0.5 * held[-1] * (1 - 1e-5) and (rank == 1 or held[rank - 2] < 0.5 * held[-1])
        kept = (_rebuilt(sent, base)[key] - base[key]).reshape(matrix.shape)
        assert np.sum((matrix - kept) ** 2) == pytest.approx(held[-1] - held[rank - 1], rel=1e-2, abs=1e-9)


def test_sites_and_server_go_on_from_one_model(record: Run, tensors_in: Run) -> None:
    recording = record("method={name: fedkd}", "federation.rounds=3")
    (_, first, _), (_, second, _), (jobs, _, _) = recording.rounds
    shared = _rebuilt(tensors_in(second), tensors_in(first))
    for job in jobs:
        kept = tensors_in(job.state)
        for key, value in shared.items():
            np.testing.assert_allclose(kept[key.replace("params/", "control/received/")], value, atol=1e-6)


def test_the_server_keeps_the_model_that_its_sites_rebuild(record: Run, load: Any) -> None:
    (_, first, replies), _ = record("method={name: fedkd}").rounds
    base, uploads = unseal(first), [Upload(r.client_id, unseal(r.upload), 1, 1) for r in replies]
    method = _method(load, "method={name: fedkd}")
    server = method.aggregate(base, uploads, 0)
    sent, kept = method.broadcast(server), method.global_model(server)
    assert any(sent[key].shape != kept[key].shape for key in kept)
    rebuilt = _rebuilt({key: value.numpy() for key, value in sent.items()}, {key: value.numpy() for key, value in base.items()})
    for key, value in kept.items():
        np.testing.assert_allclose(value.numpy(), rebuilt[key], atol=1e-6)


def test_all_are_sent_the_model_whole_when_a_site_missed_a_round(record: Run, tensors_in: Run) -> None:
    recording = record("method={name: fedkd}", "federation.client_dropout=0.5", "federation.rounds=3")
    whole = {key: value.shape for key, value in recording.outcome.tensors("global").items()}
    missed = [len(jobs) for jobs, _, _ in recording.rounds]
    assert 0 < missed[0] < 3
    assert {key: value.shape for key, value in tensors_in(recording.rounds[1][1]).items()} == whole


class Said(nn.Module):
    """A network of one voxel whose logits and one feature are parameters."""

    def __init__(self, logits: tuple[float, ...], feature: float):
        super().__init__()
        self.logits, self.feature = nn.Parameter(torch.tensor(logits)), nn.Parameter(torch.tensor(feature))

    def forward_with_features(self, image_BCIJK: Tensor, layers: tuple[str, ...]) -> Any:
        return self.logits.view(1, -1, 1, 1, 1), {layer: self.feature.view(1, 1, 1, 1, 1) for layer in layers}


def _mutual(load: Any, logits: tuple[float, ...], other: tuple[float, ...], annotated: tuple[int, ...] | None = None) -> Any:
    """Student, mentor, and the terms that they come to on a voxel of class 1; W_h doubles the student's feature."""
    method = _method(load, "method={name: fedkd, response_weight: 2, feature_weight: 3}")
    student, mentor = Said(logits, 1.5), Said(other, 5.0)
    adapters = nn.ModuleDict({"bottleneck": nn.Conv3d(1, 1, 1, bias=False)})
    nn.init.constant_(adapters["bottleneck"].weight, 2.0)
    return student, mentor, method._loss(Bystander(annotated=annotated), mentor, adapters)(student, _voxel(1))


def test_mentor_and_mentee_teach_each_other_the_less_the_worse_both_do(load: Any) -> None:
    _, _, terms = _mutual(load, (0.0, 1.0, 2.0), (1.0, 3.0, 0.0))
    z_s, z_t = (torch.tensor(z).view(1, 3, 1, 1, 1) for z in ((0.0, 1.0, 2.0), (1.0, 3.0, 0.0)))
    own, others = (float(dice_ce_loss(z, torch.ones(1, 1, 1, 1, dtype=torch.long))) for z in (z_s, z_t))
    expected = {
        "supervised": own,
        "mentor_supervised": others,
        "response": 2 * _kl((1.0, 0.0), (3.0, 1.0), (0.0, 2.0)) / (own + others),
        "mentor_response": 2 * _kl((0.0, 1.0), (1.0, 3.0), (2.0, 0.0)) / (own + others),
        "feature": 3 * (2 * 1.5 - 5.0) ** 2 / (own + others),
        "mentor_feature": 3 * (2 * 1.5 - 5.0) ** 2 / (own + others),
    }
    assert {name: float(value.detach()) for name, value in terms.items()} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["response", "feature", "supervised"])
def test_a_term_moves_the_one_whose_it_is(load: Any, name: str) -> None:
    student, mentor, terms = _mutual(load, (0.0, 1.0, 2.0), (1.0, 3.0, 0.0))
    terms[name].backward(retain_graph=True)
    assert any(p.grad is not None for p in student.parameters()) and all(p.grad is None for p in mentor.parameters())
    student.zero_grad(set_to_none=True)
    terms[f"mentor_{name}"].backward()
    assert any(p.grad is not None for p in mentor.parameters()) and all(p.grad is None for p in student.parameters())


def test_what_a_site_does_not_outline_is_no_matter_between_mentor_and_mentee(load: Any) -> None:
    """They differ only in how they share 'neither cartilage 1' between background and class 2."""
    _, _, terms = _mutual(load, (0.0, 1.0, 2.0), (2.0, 1.0, 0.0), annotated=(1,))
    assert abs(float(terms["response"].detach())) < 1e-6
    _, _, whole = _mutual(load, (0.0, 1.0, 2.0), (2.0, 1.0, 0.0))
    assert float(whole["response"].detach()) > 0.1


def test_fedkd_names_layers_that_a_network_does_not_have(load: Any) -> None:
    problems = _method(load, "method={name: fedkd, feature_layers: [encoder_9]}").problems()
    assert len(problems) == 2 and all("feature_layers: must be among encoder_1" in problem for problem in problems)


@pytest.mark.parametrize("name", ["fedmd", "fedproto", "fedkd"])
def test_in_personal_rounds_nothing_travels_and_sites_go_on(run: Run, name: str) -> None:
    method = f"method={{name: {name}}}"
    outcome = run(method, "federation.personal_rounds=1")
    assert outcome.table("transfers")["round"].max() == 0
    assert outcome.table("training").query("round == 1")["num_steps"].tolist() == [2, 2, 2]
