"""Semi-supervised methods at their limits, and their rules by hand on networks of one number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raykd.federation.transport import unseal
from raykd.methods._base import ServerStart, Upload
from raykd.methods._semi_supervised import MeanTeacher
from raykd.methods.fed_irm import RELATIONS
from raykd.numerics.local_sgd import Batch, LocalResult
from raykd.scenario.registry import METHODS

Run = Callable[..., Any]
Load = Callable[..., Any]
ONE = "params/one"
AT_SITES = ("fed_semi", "fed_mean_teacher", "fed_irm")
AT_SERVER = ("ssfl", "semi_fl")


def _method(load: Load, settings: str, *overrides: str) -> Any:
    scenario = load(f"method={{{settings}}}", *overrides)
    return METHODS.get(scenario.method.name)(scenario.method, scenario)


def _upload(client_id: int, value: float, num_labelled: int = 1, **more: Tensor) -> Upload:
    return Upload(client_id, {ONE: torch.tensor([value]), **more}, num_labelled, 1)


class _Answer(nn.Module):
    """Gives every voxel the same logits."""

    def __init__(self, *logits: float):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, image_BCIJK: Tensor) -> Tensor:
        return self.logits.view(1, -1, 1, 1, 1).expand(len(image_BCIJK), -1, *image_BCIJK.shape[2:])


class _Context:
    """A site that keeps the loss it is given, or a server that adds one to every parameter."""

    client_id, round_index, num_rounds, num_steps, num_classes = 0, 1, 2, 1, 3
    num_labelled, num_unlabelled, annotated, is_personal = 1, 1, None, False

    def __init__(self, network: nn.Module | None = None):
        self._network = network
        self.loss: Any = None

    def fit(self, start: Any, loss: Any, **rest: Any) -> Any:
        self.loss = loss
        return {key: value + 1.0 for key, value in start.items()}, LocalResult(1, {})

    def network(self, params: Any) -> Any:
        return self._network

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(len(purpose))


def _batch(num_labelled: int = 1) -> Batch:
    """Two patches; the labelled ones are all of class 2."""
    image = torch.randn((2, 1, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    return Batch(image, torch.full((num_labelled, 4, 4, 4), 2), num_labelled)


def _terms(method: Any, student: nn.Module, received: nn.Module | None = None, batch: Batch | None = None) -> dict[str, float]:
    context = _Context(received)
    method.local_update(context, {}, {ONE: torch.zeros(1)})
    return {name: float(value.detach()) for name, value in context.loss(student, batch or _batch()).items()}


@pytest.mark.parametrize("name", AT_SITES)
def test_is_fedavg_to_the_last_bit_where_its_weight_is_zero(run: Run, name: str) -> None:
    assert run(f"method={{name: {name}, consistency_weight: 0}}").models == run("method={name: fedavg}").models


@pytest.mark.parametrize("name", AT_SERVER)
def test_sites_send_back_what_they_got_where_no_pseudo_label_is_believed(record: Run, name: str) -> None:
    recording = record(f"method={{name: {name}, threshold: 1.01}}")
    for jobs, download, replies in recording.rounds:
        for job, reply in zip(jobs, replies, strict=True):
            received, sent = unseal(download) | unseal(job.extra or {}), unseal(reply.upload)
            assert received.keys() == sent.keys()
            assert all(received[key].equal(sent[key]) for key in sent)
    training = recording.outcome.table("training")
    assert (training["share_believed"] == 0.0).all() and (training["loss_total"] == 0.0).all()


@pytest.mark.parametrize("name", [*AT_SITES, *AT_SERVER])
def test_outlives_a_personal_round_a_dropout_and_a_site_without_labels(run: Run, name: str) -> None:
    """With a site of unlabelled cases alone, one of labelled cases alone that outlines one class of two, and batch statistics."""
    outcome = run(
        f"method={{name: {name}}}",
        "federation={rounds: 3, personal_rounds: 1, client_dropout: 0.3}",
        "clients[0].labels.num_shots=0",
        "clients[1].labels={num_shots: 2, classes: [tibial_cartilage]}",
        "student.network.norm=batch",
    )
    assert outcome.run.manifest["status"] == "done"
    assert outcome.table("training")["loss_total"].notna().all()
    assert set(outcome.table("transfers")["round"]) == {0, 1}
    assert all(abs(array).max() < 1e6 for model in outcome.models for array in outcome.tensors(model.split(".")[0]).values())


@pytest.mark.parametrize("name", ["fed_semi", "fed_mean_teacher", "semi_fl"])
def test_sends_no_more_than_fedavg(run: Run, name: str) -> None:
    columns = ["round", "client_id", "direction", "kind", "num_values", "num_bytes"]
    own, plain = (run(f"method={{name: {other}}}").table("transfers")[columns] for other in (name, "fedavg"))
    assert own.equals(plain)


def test_sites_without_labels_weigh_what_they_are_told_to(load: Load) -> None:
    """(2 + 8 / 2) / (1 + 1 / 2)."""
    uploads = [_upload(0, 2.0), _upload(1, 8.0, num_labelled=0)]
    method = _method(load, "name: fed_semi, unlabelled_site_weight: 0.5")
    assert float(method.aggregate({ONE: torch.zeros(1)}, uploads, 0)[ONE]) == pytest.approx(4.0)
    none = _method(load, "name: fed_semi, unlabelled_site_weight: 0.0")
    assert float(none.aggregate({ONE: torch.tensor([7.0])}, uploads[1:], 0)[ONE]) == 7.0


def test_fed_semi_learns_where_its_weak_view_is_sure(load: Load) -> None:
    """A student that says (0.2, 0.6, 0.2) everywhere: -ln 0.6 for its own class 1 at a threshold below, nothing above it."""
    student = _Answer(0.0, math.log(3.0), 0.0)
    believes, doubts = (_method(load, f"name: fed_semi, threshold: {t}, consistency_weight: 2.0") for t in (0.59, 0.61))
    assert _terms(believes, student)["consistency"] == pytest.approx(-2.0 * math.log(0.6), rel=1e-5)
    assert _terms(doubts, student)["consistency"] == 0.0
    assert "consistency" not in _terms(believes, student, batch=_batch(num_labelled=2))
    assert "supervised" not in _terms(believes, student, batch=_batch(num_labelled=0))


@pytest.mark.parametrize("name", AT_SERVER)
def test_site_labels_are_learnt_from_only_where_that_is_asked_for(load: Load, name: str) -> None:
    student, received = _Answer(0.0, 1.0, 0.0), _Answer(0.0, 1.0, 0.0)
    assert "supervised" not in _terms(_method(load, f"name: {name}"), student, received, _batch(num_labelled=2))
    asked = _terms(_method(load, f"name: {name}, site_labels: true"), student, received)
    assert asked["supervised"] > 0.0 and "consistency" in asked


def test_semi_fl_believes_the_model_that_it_received_and_not_the_one_that_moves(load: Load) -> None:
    """The received model says class 1; the student gives it 1/8: ln 8 for the strong view, and again for the mixed one, whose two
    pseudo-labels are alike."""
    student, received = _Answer(math.log(6.0), 0.0, 0.0), _Answer(0.0, 9.0, 0.0)
    terms = _terms(_method(load, "name: semi_fl, mix_weight: 0.5"), student, received)
    assert terms == pytest.approx({"consistency": math.log(8.0), "mix": 0.5 * math.log(8.0)}, rel=1e-5)
    assert "mix" not in _terms(_method(load, "name: semi_fl, mix_weight: 0.0"), student, received)


def test_semi_fls_server_trains_before_the_first_round_and_after_each(load: Load) -> None:
    method = _method(load, "name: semi_fl")
    server = {ONE: torch.tensor([3.0]), "control/momentum/x": torch.tensor([5.0])}
    for hook in (lambda: method.start_server(_Context(), server), lambda: method.update_server(_Context(), server, [])):
        after = hook()
        assert float(after[ONE]) == 4.0 and float(after["control/momentum/x"]) == 5.0


def test_ssfl_averages_within_a_group_and_with_the_server(load: Load) -> None:
    """Groups {0, 2} and {1}: the server goes from 10 to 11; (1 + 3 + 11) / 3 = 5, (5 + 11) / 2 = 8, and 6.5 in the mean."""
    method = _method(load, "name: ssfl, num_groups: 2")
    server = method.init_server(ServerStart({ONE: torch.tensor([10.0])}, {}))
    uploads = [_upload(0, 1.0), _upload(1, 5.0), _upload(2, 3.0)]
    server = method.update_server(_Context(), method.aggregate(server, uploads, 0), uploads)
    assert [float(method.download(server, client)[ONE]) for client in (0, 1, 2)] == [5.0, 8.0, 5.0]
    assert float(method.global_model(server)[ONE]) == 6.5


def test_an_ssfl_group_that_fell_silent_receives_the_servers_model(load: Load) -> None:
    method = _method(load, "name: ssfl, num_groups: 2")
    server = method.init_server(ServerStart({ONE: torch.tensor([10.0])}, {}))
    server = method.update_server(_Context(), method.aggregate(server, [_upload(0, 1.0)], 0), [_upload(0, 1.0)])
    assert float(method.download(server, 1)[ONE]) == 11.0


def test_each_ssfl_site_receives_its_groups_model_and_no_other(record: Run) -> None:
    recording = record("method={name: ssfl}")
    jobs, download, _ = recording.rounds[1]
    assert not unseal(download)
    zero, one, two = (unseal(job.extra) for job in jobs)
    assert all(zero[key].equal(two[key]) for key in zero)
    assert any(not zero[key].equal(one[key]) for key in zero)
    transfers = recording.outcome.table("transfers")
    assert set(transfers["kind"]) == {"params"} and transfers["num_values"].nunique() == 1 and len(transfers) == 2 * 3 * 2


def test_an_ssfl_site_that_had_no_part_before_a_personal_round_goes_on_from_the_first_model(load: Load) -> None:
    """Nothing is sent to it then; its training adds one."""
    method = _method(load, "name: ssfl")
    update = method.local_update(_Context(), method.init_client({ONE: torch.tensor([3.0])}), {})
    assert float(update.payload[ONE]) == 4.0


def test_a_mean_teacher_counts_its_steps_over_rounds() -> None:
    """Students 4 and 8: the teacher is the first, then their mean 6; in the next round 12 moves it by a third, to 8. With a decay
    of a half it moves by half as soon as it may, to 9."""
    for decay, expected in ((0.99, 8.0), (0.5, 9.0)):
        student = nn.Linear(1, 1, bias=False)

        class Fresh(_Context):
            def network(self, params: Any) -> Any:
                network = nn.Linear(1, 1, bias=False).requires_grad_(False)
                network.weight.copy_(params["params/weight"])
                return network

        state: dict[str, Tensor] = {}
        for values in ((4.0, 8.0), (12.0,)):
            teacher = MeanTeacher(Fresh(), state, {"params/weight": torch.tensor([[100.0]])}, decay)  # type: ignore[arg-type]
            for value in values:
                nn.init.constant_(student.weight, value)
                teacher.follow(student)
            state = teacher.state()
        assert float(state["teacher/weight"]) == pytest.approx(expected)
        assert int(state["control/num_steps"]) == 3


@pytest.mark.parametrize("name", ["fed_mean_teacher", "fed_irm"])
def test_a_site_keeps_its_teacher_and_the_teachers_age(record: Run, name: str) -> None:
    for round_index, (_, _, replies) in enumerate(record(f"method={{name: {name}}}").rounds):
        for reply in replies:
            assert int(unseal(reply.state)["control/num_steps"]) == 2 * (round_index + 1)
            assert not any(key.startswith("teacher/") for key in unseal(reply.upload))


def test_a_mean_teacher_is_believed_where_its_entropy_is_low(load: Load) -> None:
    """Round 2 of 2: the ramp is 1, the limit ln 3. The teacher says (0.8, 0.1, 0.1), the student thirds; over three classes the
    squared distance is ((7/15)^2 + 2 (7/30)^2) / 3."""
    method = _method(load, "name: fed_mean_teacher, consistency_weight: 0.6, num_passes: 2")
    sure, unsure = (_terms(method, _Answer(0.0, 0.0, 0.0), _Answer(x, 0.0, 0.0)) for x in (math.log(8.0), 0.0))
    assert sure["consistency"] == pytest.approx(0.6 * ((7 / 15) ** 2 + 2 * (7 / 30) ** 2) / 3, rel=1e-4)
    assert unsure["consistency"] == pytest.approx(0.0, abs=1e-9)


def test_a_mean_teacher_that_is_not_sure_yet_teaches_nothing(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many rounds the first: the limit is near 0.75 ln 3 = 0.82, below the 0.94 of (0.6, 0.2, 0.2)."""
    monkeypatch.setattr(_Context, "round_index", 0)
    monkeypatch.setattr(_Context, "num_rounds", 1000)
    method = _method(load, "name: fed_mean_teacher, consistency_weight: 1.0")
    assert _terms(method, _Answer(0.0, 0.0, 0.0), _Answer(math.log(3.0), 0.0, 0.0))["consistency"] == 0.0


def test_fed_irm_sends_a_matrix_of_classes_by_classes_beside_the_model(record: Run) -> None:
    recording = record("method={name: fed_irm}", "clients[0].labels.num_shots=0")
    transfers = recording.outcome.table("transfers").query("kind == 'prototypes'")
    up = transfers.query("direction == 'up'")
    assert set(transfers["num_values"]) == {9}
    assert up["client_id"].tolist() == [2, 2]  # the other two sites have no label
    assert transfers.query("direction == 'down'")["client_id"].nunique() == 3


def test_a_fed_irm_site_that_outlines_one_class_says_nothing_of_its_background(record: Run) -> None:
    recording = record("method={name: fed_irm}", "clients[1].labels={num_shots: 1, classes: [tibial_cartilage]}")
    whole, _, partial = (unseal(reply.upload)[RELATIONS] for reply in recording.replies[:3])
    assert bool((whole[0] > 0).all()) and float(whole[0].sum()) == pytest.approx(1.0)
    assert not partial[0].any() and not partial[1].any()


def test_fed_irm_keeps_what_it_was_told_of_a_class_that_nobody_shows_in_a_round(load: Load) -> None:
    method = _method(load, "name: fed_irm")
    told, missing = torch.tensor([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), torch.zeros(3)
    new = torch.stack([torch.tensor([0.2, 0.8, 0.0]), missing, missing])
    after = method.aggregate({ONE: torch.zeros(1), RELATIONS: told}, [_upload(0, 1.0, **{RELATIONS: new})], 0)
    assert after[RELATIONS].flatten().tolist() == pytest.approx([0.2, 0.8, 0, 0, 1, 0, 0, 0, 1])


def test_fed_irms_sites_without_labels_count_once_they_have_joined(load: Load) -> None:
    """A tenth of twenty rounds: not in rounds 0 and 1, and from round 2 on."""
    method = _method(load, "name: fed_irm, join_share: 0.1", "federation.rounds=20")
    uploads = [_upload(0, 2.0), _upload(1, 10.0, num_labelled=0)]
    server = {ONE: torch.zeros(1), RELATIONS: torch.zeros(3, 3)}
    assert [float(method.aggregate(server, uploads, r)[ONE]) for r in (0, 1, 2, 19)] == [2.0, 2.0, 6.0, 6.0]


def test_fed_irm_matches_relations_of_voxels_that_it_is_sure_of(load: Load) -> None:
    """A student that says (0.8, 0.1, 0.1) of every unlabelled voxel relates class 0 as softmax((ln 8, 0, 0) / 2); against a third
    each that is half of sum (p - 1/3) ln(3 p). Its entropy, 0.64, is 0.58 of ln 3: a limit of a half leaves no voxel."""
    p = [math.sqrt(8.0) / (math.sqrt(8.0) + 2), 1 / (math.sqrt(8.0) + 2), 1 / (math.sqrt(8.0) + 2)]
    expected = 0.5 * sum((x - 1 / 3) * math.log(3 * x) for x in p)
    student, download = _Answer(math.log(8.0), 0.0, 0.0), {ONE: torch.zeros(1), RELATIONS: torch.full((3, 3), 1 / 3)}
    for max_entropy, relation in ((0.75, expected), (0.5, 0.0)):
        context = _Context(_Answer(math.log(8.0), 0.0, 0.0))
        method = _method(load, f"name: fed_irm, consistency_weight: 1.0, max_entropy: {max_entropy}")
        method.local_update(context, {}, download)
        terms = context.loss(student, _batch())
        assert float(terms["relation"].detach()) == pytest.approx(relation, rel=1e-4)
        assert float(terms["consistency"].detach()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", AT_SITES)
def test_a_federation_without_a_label_is_refused(load: Load, name: str) -> None:
    shots = ("clients[0].labels.num_shots=0", "clients[1].labels.num_shots=0")
    (sentence,) = _method(load, f"name: {name}", *shots).problems()
    assert "needs a site with labelled cases" in sentence


@pytest.mark.parametrize("name", AT_SERVER)
def test_a_class_that_nobody_teaches_is_refused(load: Load, name: str) -> None:
    lacking = "repository.classes=[femoral_cartilage]"
    (sentence,) = _method(load, f"name: {name}", lacking).problems()
    assert "does not outline tibial_cartilage" in sentence
    assert not _method(load, f"name: {name}, site_labels: true", lacking).problems()


def test_more_groups_than_sites_are_refused(load: Load) -> None:
    (sentence,) = _method(load, "name: ssfl, num_groups: 4").problems()
    assert "at most 3, got 4" in sentence


@pytest.mark.parametrize("name", ["fed_semi", "ssfl"])
def test_a_warm_start_is_a_student_trained_on_the_repository(load: Load, name: str) -> None:
    from raykd.federation.start import repository_networks

    assert not repository_networks(_method(load, f"name: {name}"))
    assert "student" in repository_networks(_method(load, f"name: {name}, is_warm: true"))
