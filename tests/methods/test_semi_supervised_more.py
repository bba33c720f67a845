"""Semi-supervised methods with adaptive aggregation, and conditional distillation: their limits, their server's arithmetic by hand,
and what travels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.methods._base import ServerStart, Upload
from raykd.numerics.params import Payload, state_of
from raykd.scenario.registry import METHODS

Run = Callable[..., Any]
Load = Callable[..., Any]
NO_LABELS = "clients[0].labels.num_shots=0"
"""The two communities then have unlabelled cases only, and the university one labelled and one unlabelled."""
W = "params/w"


def _method(load: Load, block: str, *overrides: str) -> Any:
    scenario = load(f"method={block}", *overrides)
    return METHODS.get(scenario.method.name)(scenario.method, scenario)


def _upload(client_id: int, value: float, labelled: int, unlabelled: int, **control: Tensor) -> Upload:
    payload: Payload = {W: torch.tensor([value])} | {key.replace("__", "/"): item for key, item in control.items()}
    return Upload(client_id, payload, labelled, unlabelled)


def _closest(one: Any, other: Any) -> float:
    a, b = one.tensors("global"), other.tensors("global")
    return max(float(np.abs(a[key] - b[key]).max()) for key in a)


@pytest.mark.parametrize(
    "method",
    [
        "{name: rscfed, num_unlabelled: 0, subset_size: 3, labelled_distance_scale: 0}",
        "{name: cbafed, num_unlabelled: 0}",
        "{name: fed_semi_dg, num_unlabelled: 0, feature_weight: 0, weight_step: 0}",
        "{name: fed_semi_seg, num_unlabelled: 0, aggregation: uniform}",
        "{name: condistfl}",
    ],
)
def test_is_fedavg_where_nothing_is_learnt_beside_labels(run: Run, method: str) -> None:
    """For conditional distillation that is where every site outlines every class."""
    assert _closest(run(f"method={method}"), run("method={name: fedavg}")) < 1e-6


TERMS = {
    "rscfed": ["consistency", "consistency"],
    "cbafed": [None, "pseudo"],
    "fed_semi_dg": ["pseudo", "pseudo"],
    "fed_semi_seg": ["pseudo", "pseudo"],
}


@pytest.mark.parametrize("name", TERMS)
def test_a_site_without_labels_learns_as_soon_as_somebody_taught_it_and_a_personal_round_is_borne(run: Run, name: str) -> None:
    """Of three rounds the last is personal: no counts, prototypes or second model come with it."""
    outcome = run(f"method={{name: {name}}}", NO_LABELS, "federation={rounds: 3, personal_rounds: 1}")
    training = outcome.table("training").query("client_id == 0").set_index("round")
    for round_index, term in enumerate(TERMS[name]):
        row = training.loc[round_index]
        assert row["num_steps"] == (0 if term is None else 2)
        assert term is None or row[f"loss_{term}"] >= 0
        assert math.isnan(row["loss_supervised"])
    assert outcome.run.manifest["status"] == "done"


def _sent(outcome: Any, round_index: int, client_id: int) -> dict[tuple[str, str], int]:
    rows = outcome.table("transfers").query("round == @round_index and client_id == @client_id")
    return {(row.direction, row.kind): row.num_values for row in rows.itertuples()}


def test_what_travels_besides_the_model(run: Run) -> None:
    """Of three classes: counts by class both ways; a divergence up; of 6 patches a prototype of 4 features by class, its counts and
    an agreement up, and a second model and the one labelled site's prototypes down to sites with unlabelled cases."""
    personal = "federation={rounds: 3, personal_rounds: 1}"
    balanced, general, guided = (run(f"method={{name: {name}}}", NO_LABELS, personal) for name in list(TERMS)[1:])
    size = _sent(balanced, 1, 0)["down", "params"]
    assert _sent(balanced, 1, 0) == {(d, kind): n for d in ("down", "up") for kind, n in (("params", size), ("control", 3))}
    assert _sent(general, 1, 0) == {("down", "params"): size, ("up", "params"): size, ("up", "control"): 1}
    up = {("up", "params"): size, ("up", "control"): 1}
    first, second = _sent(guided, 0, 0), _sent(guided, 1, 0)
    prototypes = 6 * 3 * 4 + 6 * 3
    assert first == {("down", "params"): size, ("up", "prototypes"): prototypes, **up}
    down = {("down", "params"): size, ("down", "teacher"): size, ("down", "prototypes"): prototypes}
    assert second == {**down, ("up", "prototypes"): prototypes, **up}


def test_a_consensus_of_one_client_is_that_client(load: Load) -> None:
    method = _method(load, "{name: rscfed, subset_size: 1, num_subsets: 1}")
    uploads = [_state_upload(method, client_id, float(client_id + 1)) for client_id in range(3)]
    found = {float(method.aggregate({}, uploads, round_index)[_key(method)].max()) for round_index in range(12)}
    assert found == {1.0, 2.0, 3.0}


def test_a_consensus_weighs_by_distance_over_cases(load: Load) -> None:
    """Models 1 and 2 everywhere, of 1 and 3 cases: mean 1.5, relative distances 1/3; without labels exponents -3/3 and -3/9."""
    method = _method(load, "{name: rscfed, subset_size: 2, distance_scale: 3.0}")
    uploads = [_state_upload(method, 0, 1.0, unlabelled=1), _state_upload(method, 1, 2.0, unlabelled=3)]
    one, two = math.exp(-1), math.exp(-1 / 3)
    assert float(method.aggregate({}, uploads, 0)[_key(method)].max()) == pytest.approx((one + 2 * two) / (one + two))


def test_labelled_clients_count_more_and_set_the_scale_of_their_subset(load: Load) -> None:
    """Without reweighting, 4 : 1 of models 1 and 2."""
    block = "{name: rscfed, subset_size: 2, labelled_factor: 4.0, labelled_distance_scale: 0, distance_scale: 1000.0}"
    method = _method(load, block)
    uploads = [_state_upload(method, 0, 1.0, labelled=1), _state_upload(method, 1, 2.0, unlabelled=1)]
    assert float(method.aggregate({}, uploads, 0)[_key(method)].max()) == pytest.approx(6 / 5)


def _state_upload(method: Any, client_id: int, value: float, labelled: int = 0, unlabelled: int = 0) -> Upload:
    from raykd.methods._layout import layout

    state = {key: torch.full_like(tensor, value) for key, tensor in state_of(layout(method)).items()}
    return Upload(client_id, state, labelled, unlabelled)


def _key(method: Any) -> str:
    from raykd.methods._layout import parameter_keys

    return parameter_keys(method)[0]


def test_every_fifth_round_is_half_the_one_five_rounds_before(load: Load) -> None:
    method = _method(load, "{name: cbafed}")
    server = method.init_server(ServerStart({W: torch.tensor([1.0])}, {}))
    uploads = [_upload(0, 3.0, 1, 0, control__counts=torch.tensor([5.0, 1.0, 2.0], dtype=torch.float64))]
    fourth, fifth = method.aggregate(server, uploads, 4), method.aggregate(server, uploads, 5)
    assert [float(fourth[key]) for key in (W, "control/anchor/w")] == [3.0, 1.0]
    assert [float(fifth[key]) for key in (W, "control/anchor/w")] == [2.0, 2.0]
    assert float(method.aggregate(server, uploads, 0)[W]) == 3.0


def test_counts_of_all_sites_are_summed_and_kept_where_nobody_counted(load: Load) -> None:
    method = _method(load, "{name: cbafed}")
    server = method.init_server(ServerStart({W: torch.tensor([1.0])}, {}))
    counts = torch.tensor([5.0, 1.0, 2.0], dtype=torch.float64)
    server = method.aggregate(server, [_upload(i, 0.0, 1, 0, control__counts=counts * i) for i in (1, 2)], 0)
    assert server["control/counts"].tolist() == [15.0, 3.0, 6.0]
    server = method.aggregate(server, [_upload(0, 0.0, 0, 1, control__counts=torch.zeros(3, dtype=torch.float64))], 1)
    assert method.broadcast(server)["control/counts"].tolist() == [15.0, 3.0, 6.0]


def test_no_pseudo_label_passes_a_threshold_of_one(run: Run) -> None:
    """And the second most probable class is never taken."""
    outcome = run("method={name: cbafed, base: 1.0, cap: 1.0, rare: 0}", NO_LABELS)
    assert outcome.table("training").query("round == 1")["loss_pseudo"].tolist() == [0.0, 0.0, 0.0]


def test_generalisation_weights_are_equal_at_first_then_follow_the_divergence(load: Load) -> None:
    """Three sites at 1/3; two answer in round 0 of 4 with g = 1, 2 and step 0.3: 1/3 + 0.15 and 1/3 + 0.3, scaled to 2/3 together.
    In round 1 the step is 0.225."""
    method = _method(load, "{name: fed_semi_dg, weight_step: 0.3}", "federation.rounds=4")
    server = method.init_server(ServerStart({W: torch.tensor([0.0])}, {}))
    uploads = [_upload(i, v, 1, 1, control__divergence=torch.tensor([g])) for i, v, g in ((0, 1.0, 1.0), (2, 4.0, 2.0))]
    server = method.aggregate(server, uploads, 0)
    a, b = 1 / 3 + 0.15, 1 / 3 + 0.3
    a, b = a / (a + b) * 2 / 3, b / (a + b) * 2 / 3
    assert float(server[W]) == 2.5
    assert server["control/weights"].tolist() == pytest.approx([a, 1 / 3, b])
    server = method.aggregate(server, uploads, 1)
    a, b = a + 0.1125, b + 0.225
    assert float(server[W]) == pytest.approx((a + 4 * b) / (a + b))
    assert method.broadcast(server).keys() == {W}


def test_a_network_whose_encoder_is_unknown_is_refused_with_a_sentence(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    import raykd.methods.fed_semi_dg as module

    method = _method(load, "{name: fed_semi_dg}")
    assert method.problems() == []
    plain = torch.nn.Module()
    plain.settings = method.scenario.student.network  # type: ignore[assignment]
    monkeypatch.setattr(module, "layout", lambda method: plain)
    assert ["feature_weight" in problem and "unet" in problem for problem in method.problems()] == [True]


def _guided(load: Load, aggregation: str = "consistency") -> tuple[Any, list[Upload]]:
    """Sites 0 and 2 have labels and prototypes of class 1 along two axes; site 1 has none, and one along the first axis."""
    method = _method(load, f"{{name: fed_semi_seg, aggregation: {aggregation}}}")
    directions, cases, agreement = ([1.0, 0.0], [2.0, 0.0], [0.0, 1.0]), ((2, 0), (0, 4), (3, 0)), (0.0, 0.25, 0.0)
    uploads = []
    for i, (direction, (labelled, unlabelled), agreed) in enumerate(zip(directions, cases, agreement, strict=True)):
        mean = torch.zeros(1, 3, 2)
        mean[0, 1] = torch.tensor(direction)
        control = {"prototypes__mean": mean, "prototypes__count": torch.tensor([[0.0, 1.0, 0.0]])}
        control["control__agreement"] = torch.tensor([agreed])
        uploads.append(_upload(i, 10.0 ** (i + 1), labelled, unlabelled, **control))
    return method, uploads


def test_unlabelled_cases_count_by_how_far_the_models_agreed_on_them(load: Load) -> None:
    """Volumes 2, 0.25 * 4 = 1, 3 of models 10, 100, 1000."""
    method, uploads = _guided(load)
    assert float(method.aggregate({}, uploads, 0)[W]) == pytest.approx((20 + 100 + 3000) / 6)
    method, uploads = _guided(load, "uniform")
    assert float(method.aggregate({}, uploads, 0)[W]) == pytest.approx(1110 / 3)


def test_sites_that_agreed_on_nothing_and_have_no_label_all_count_alike(load: Load) -> None:
    method, uploads = _guided(load)
    silent = [_upload(u.client_id, 6.0 * u.client_id, 0, 1, **_extras(u, agreement=0.0)) for u in uploads]
    assert float(method.aggregate({}, silent, 0)[W]) == pytest.approx(6.0)


def _extras(upload: Upload, agreement: float) -> dict[str, Tensor]:
    rest = {key.replace("/", "__"): value for key, value in upload.payload.items() if key.startswith("prototypes/")}
    return rest | {"control__agreement": torch.tensor([agreement])}


def test_a_guide_is_the_mean_of_labelled_models_by_how_alike_their_prototypes_are(load: Load) -> None:
    """Cosines 1 and 0 of labelled sites 0 and 2: e : 1 of models 10 and 1000."""
    method, uploads = _guided(load)
    server = method.aggregate({}, uploads, 0)
    extra = method.download(server, 1)
    assert float(extra["teacher/w"]) == pytest.approx((math.e * 10 + 1000) / (math.e + 1))
    assert extra["prototypes/mean"][:, 1].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert extra["prototypes/count"].tolist() == [[0.0, 1.0, 0.0]] * 2
    assert method.broadcast(server).keys() == {W}


def test_no_guide_for_sites_without_unlabelled_cases_or_never_heard_of_or_before_anybody_had_labels(load: Load) -> None:
    method, uploads = _guided(load)
    server = method.aggregate({}, uploads, 0)
    assert method.download(server, 0) == {}
    assert method.download(server, 7) == {}
    assert method.download(method.init_server(ServerStart({W: torch.zeros(1)}, {})), 1) == {}
    assert method.download(method.aggregate({}, uploads[1:2], 0), 1) == {}


def test_a_site_that_dropped_out_still_guides_with_its_last_model(load: Load) -> None:
    method, uploads = _guided(load)
    server = method.aggregate(method.aggregate({}, uploads, 0), uploads[1:2], 1)
    assert float(method.download(server, 1)["teacher/w"]) == pytest.approx((math.e * 10 + 1000) / (math.e + 1))


PARTIAL = "clients[1].labels={num_shots: 1, classes: [tibial_cartilage]}"


def test_only_the_site_that_leaves_a_class_out_distils_and_more_so_every_round(run: Run) -> None:
    """Weights 0.5 and 1 on either round; with [0, 0] it is FedAvg."""
    training = run("method={name: condistfl, weight: [0.5, 1.0]}", PARTIAL).table("training")
    distilled = training.set_index(["client_id", "round"])["loss_conditional"]
    assert distilled.notna().tolist() == [client == 2 for client, _ in distilled.index]
    constant = run("method={name: condistfl, weight: [0.5, 0.5]}", PARTIAL).table("training")
    same = constant.set_index(["client_id", "round"])["loss_conditional"]
    assert distilled[2, 0] == same[2, 0] > 0
    assert distilled[2, 1] == pytest.approx(2 * same[2, 1], rel=0.05)
    assert _closest(run("method={name: condistfl, weight: [0.0, 0.0]}", PARTIAL), run("method={name: fedavg}", PARTIAL)) == 0.0
