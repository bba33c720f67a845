"""The averaging family at its limits: settings under which a method must be another one, and what it must not share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from raykd.methods.moon import contrast
from raykd.methods.scaffold import Scaffold
from raykd.numerics.params import squared_distance
from raykd.scenario.registry import METHODS

Run = Callable[..., Any]
SGD = "training.optimiser=sgd"


def _closest(one: Any, other: Any, name: str = "global") -> float:
    """The largest difference between two models of the same keys."""
    a, b = one.tensors(name), other.tensors(name)
    assert a.keys() == b.keys()
    return max(float(np.abs(a[key] - b[key]).max()) for key in a)


@pytest.mark.parametrize(
    "method",
    [
        "{name: fedprox, mu: 0}",
        "{name: fedavgm, momentum: 0, server_learning_rate: 1}",
        "{name: moon, mu: 0}",
        "{name: ditto}",
    ],
)
def test_is_fedavg_where_its_weight_is_zero(run: Run, method: str) -> None:
    # One round: Adam makes a step out of a rounding error where a gradient is nearly zero.
    one = "federation.rounds=1"
    assert _closest(run(f"method={method}", one), run("method={name: fedavg}", one)) < 1e-6


def test_fednova_is_fedavg_where_all_take_as_many_steps(run: Run) -> None:
    assert _closest(run("method={name: fednova}", SGD), run("method={name: fedavg}", SGD)) < 1e-6


def test_fednova_differs_from_fedavg_where_they_do_not(run: Run) -> None:
    own = "clients[0].training={num_local_steps: 6}"
    assert _closest(run("method={name: fednova}", SGD, own), run("method={name: fedavg}", SGD, own)) > 1e-5


def test_a_proximal_term_holds_the_clients_near_the_server(run: Run) -> None:
    """Largest move of any parameter over one round, under Adam's equal steps: a strong pull turns it back."""
    one = "federation.rounds=1", "training.num_local_steps=8"
    start = run("method={name: fedavg}", "federation.rounds=1", "training.num_local_steps=1", "training.learning_rate=1e-9")
    free, held = (run(f"method={{name: fedprox, mu: {mu}}}", *one) for mu in (0, 1000))
    assert _closest(held, start) < _closest(free, start)


def test_scaffold_is_fedavg_in_its_first_round(run: Run) -> None:
    """All control variates are zero then."""
    one = "federation.rounds=1"
    assert _closest(run("method={name: scaffold}", SGD, one), run("method={name: fedavg}", SGD, one)) < 1e-7


def test_scaffold_corrects_every_client_in_its_second(run: Run) -> None:
    """Each client's own last model shows it; in their mean the corrections, which sum to zero, all but cancel."""
    fast = "training.learning_rate=0.05"
    corrected, plain = run("method={name: scaffold}", SGD, fast), run("method={name: fedavg}", SGD, fast)
    assert min(_closest(corrected, plain, name) for name in _personal(plain)) > 1e-4


def test_scaffold_with_one_client_is_that_client_alone(run: Run) -> None:
    """c = c_k then, in every round, so that nothing is corrected."""
    alone = "clients=[{group: one, source: {name: phantom, num_cases: 3, field_of_view_mm: [100, 100, 100]}, num_test: 1}]"
    assert _closest(run("method={name: scaffold}", SGD, alone), run("method={name: fedavg}", SGD, alone)) < 1e-6


def test_scaffolds_control_variate_is_the_second_option_of_the_source_for_plain_sgd(load: Callable[..., Any]) -> None:
    """c_k' = c_k - c + (w - y) / (tau eta) for two steps of SGD on a quadratic of slope a (x - t), worked out here."""
    scenario = load("method={name: scaffold}", SGD)
    method = Scaffold(scenario.method, scenario)
    name = "network"  # the one parameter of a fake network
    rate, target, c, own = 0.1, 3.0, 0.7, -0.2

    class Context:
        num_rounds, annotated = 1, None

        def fit(self, start: Any, loss: Any, *, before_step: Any) -> Any:
            model = torch.nn.ParameterDict({name: torch.nn.Parameter(start[f"params/{name}"].clone())})
            for _ in range(2):
                model[name].grad = 2.0 * (model[name].detach() - target)
                before_step(model)
                model[name].data -= rate * model[name].grad
            from raykd.numerics.local_sgd import LocalResult

            return {f"params/{name}": model[name].detach().clone()}, LocalResult(2, {})

    method._zeros = lambda params: {f"control/{name}": torch.zeros(1)}  # type: ignore[method-assign]
    start = torch.tensor([1.0])
    download = {f"params/{name}": start, f"control/{name}": torch.tensor([c])}
    update = method.local_update(Context(), {f"control/{name}": torch.tensor([own])}, download)  # type: ignore[arg-type]
    y = update.payload[f"params/{name}"]
    assert float(update.state[f"control/{name}"]) == pytest.approx(float(own - c + (start - y) / (2 * rate)), rel=1e-5)


def test_fedbn_never_sends_a_normalisation_layer(record: Run, tensors_in: Callable[..., Any]) -> None:
    recording = record("method={name: fedbn}")
    sent = {key for reply in recording.replies for key in tensors_in(reply.upload)}
    known = recording.outcome.tensors(_personal(recording.outcome)[0])
    kept = known.keys() - sent
    assert kept and sent
    # In this U-Net each level's ADN block holds the GroupNorm under N.
    assert all(".N." in key for key in kept)
    assert not any(".N." in key for key in sent)


def _personal(outcome: Any) -> list[str]:
    return [name.removesuffix(".safetensors") for name in outcome.models if name.startswith("personal-")]


def test_sites_under_fedbn_differ_in_their_normalisation_alone(run: Run) -> None:
    outcome = run("method={name: fedbn}", "federation.rounds=1", "training.learning_rate=1e-9")
    one, other = (outcome.tensors(name) for name in _personal(outcome)[:2])
    differing = {key for key in one if not np.allclose(one[key], other[key], atol=1e-6)}
    assert all(".N." in key for key in differing)


def test_fedrep_never_sends_its_head(record: Run, tensors_in: Callable[..., Any]) -> None:
    recording = record("method={name: fedrep}")
    sent = {key for reply in recording.replies for key in tensors_in(reply.upload)}
    kept = recording.outcome.tensors(_personal(recording.outcome)[0]).keys() - sent
    shapes = {key: recording.outcome.tensors(_personal(recording.outcome)[0])[key].shape for key in kept}
    num_classes = len(recording.scenario.classes) + 1
    assert shapes and all(num_classes in shape[:2] for shape in shapes.values())


def test_dittos_personal_models_are_pulled_to_the_global_one(run: Run) -> None:
    """Without a pull they are those of `local`; a strong one brings them nearer to the global model."""
    free, held = run("method={name: ditto, pull: 0}"), run("method={name: ditto, pull: 1000}")
    local = run("method={name: local}")
    for name in _personal(free):
        assert _closest(free, local, name) < 1e-6

    def distance(outcome: Any) -> float:
        shared = outcome.tensors("global")
        return sum(
            float(np.square(outcome.tensors(name)[key] - shared[key]).sum()) for name in _personal(outcome) for key in shared
        )

    assert distance(held) < distance(free)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_an_adaptive_server_moves_no_parameter_further_than_its_rate_allows(run: Run, name: str) -> None:
    """In the first round |m| = 0.1 |d| and sqrt(v) >= 0.1 |d|, so that a step is at most the server's rate."""
    outcome = run(f"method={{name: {name}, server_learning_rate: 0.001}}", "federation.rounds=1")
    start = run("method={name: fedavg}", "federation.rounds=1", "training.learning_rate=1e-12")
    assert 1e-5 < _closest(outcome, start) <= 0.001 + 1e-6


def test_moons_contrast_by_hand() -> None:
    """Cosines 1 and 0 at temperature 0.5: -ln(e^2 / (e^2 + 1))."""
    mine, near, far = torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert float(contrast(mine, near, far, 0.5)) == pytest.approx(float(torch.log(1 + torch.exp(torch.tensor(-2.0)))), rel=1e-6)


def test_squared_distance_sums_over_parameters_and_has_a_gradient() -> None:
    model = torch.nn.Linear(2, 1)
    payload = {"params/weight": model.weight.detach() - 1.0, "params/bias": model.bias.detach() + 2.0}
    distance = squared_distance(model, payload)
    distance.backward()
    assert float(distance.detach()) == pytest.approx(1 + 1 + 4, rel=1e-5)
    assert model.bias.grad is not None and float(model.bias.grad) == pytest.approx(-4.0, rel=1e-5)


def test_a_method_of_sgd_alone_refuses_another_optimiser(load: Callable[..., Any]) -> None:
    scenario = load("method={name: fednova}")
    scenario = scenario.model_copy(update={"training": scenario.training.model_copy(update={"optimiser": "adam"})})
    (sentence,) = METHODS.get("fednova")(scenario.method, scenario).problems()
    assert "training.optimiser sgd only, got adam" in sentence
