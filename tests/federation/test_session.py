"""What a client offers a method: parts that stay still, modules beside the network, patches that all sites share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raykd.federation.client import SERVER, Client
from raykd.federation.protocols import EvaluationJob
from raykd.federation.session import Session
from raykd.federation.transport import seal, unseal
from raykd.methods._base import supervised_loss
from raykd.numerics.params import state_of
from raykd.scenario.registry import METHODS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def scenario(load: Callable[..., Any]) -> Any:
    return load("method={name: feddf}")


@pytest.fixture(scope="module")
def clients(scenario: Any) -> list[Client]:
    method = METHODS.get("feddf")(scenario.method, scenario)
    return [Client.build(scenario, method, member, ROOT, "cpu") for member in scenario.members()[:2]]


@pytest.fixture(scope="module")
def server(scenario: Any) -> Client:
    return Client.server(scenario, METHODS.get("feddf")(scenario.method, scenario), ROOT, "cpu")


@pytest.fixture
def session(clients: list[Client]) -> Session:
    return Session(clients[0], 0, {})


@pytest.fixture
def start(clients: list[Client]) -> dict[str, torch.Tensor]:
    return state_of(clients[0].fresh_network("student"))


def _moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {key for key in before if not before[key].equal(after[key])}


def test_steps_of_several_fits_and_of_an_adaptation_add_up(
    session: Session, clients: list[Client], start: dict[str, torch.Tensor]
) -> None:
    session.fit(start, supervised_loss(None), num_steps=1)
    one = session.num_flops
    session.fit(start, supervised_loss(None), num_steps=2)
    assert one and session.num_flops == 3 * one
    session.adapt(state_of(clients[0].fresh_network("teacher"), "teacher"), 1)
    assert session.num_flops > 3 * one and session.num_steps_taken == 4


def test_only_what_is_to_train_moves(session: Session, start: dict[str, torch.Tensor]) -> None:
    key = next(key for key in start if key.endswith("conv.weight"))
    params, result = session.fit(start, supervised_loss(None), trains=lambda name: f"params/{name}" == key)
    assert _moved(start, params) == {key}
    assert result.num_steps == session.num_steps == 2


def test_steps_can_be_counted_otherwise(session: Session, start: dict[str, torch.Tensor]) -> None:
    _, result = session.fit(start, supervised_loss(None), num_steps=3)
    assert result.num_steps == 3
    assert result.sum_learning_rate == pytest.approx(3 * 2e-3)


def test_a_module_beside_the_network_is_trained_with_it(session: Session, start: dict[str, torch.Tensor]) -> None:
    beside = nn.Linear(1, 1)
    before, supervised = beside.weight.detach().clone(), supervised_loss(None)

    def loss(model: Any, batch: Any) -> dict[str, torch.Tensor]:
        return supervised(model, batch) | {"beside": beside(torch.ones(1, 1)).square().sum()}

    _, result = session.fit(start, loss, beside=beside)
    assert not beside.weight.equal(before)
    assert set(result.terms) == {"supervised", "beside"}


def test_fits_of_one_purpose_see_the_same_patches_and_of_another_purpose_others(
    session: Session, start: dict[str, torch.Tensor]
) -> None:
    once, _ = session.fit(start, supervised_loss(None))
    again, _ = session.fit(start, supervised_loss(None))
    other, _ = session.fit(start, supervised_loss(None), purpose="other")
    assert not _moved(once, again)
    assert _moved(once, other)


def test_a_network_of_its_own_does_not_move_with_the_client_s(session: Session, start: dict[str, torch.Tensor]) -> None:
    frozen = session.network(start)
    session.fit(start, supervised_loss(None))
    assert not _moved(start, state_of(frozen))
    assert not frozen.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_training_can_be_given_its_batches(session: Session, start: dict[str, torch.Tensor]) -> None:
    """Two of them, whatever the scenario's number of steps."""
    seen = []
    drawn = list(session.patches(2, num_labelled=1))

    def loss(model: Any, batch: Any) -> dict[str, torch.Tensor]:
        seen.append(batch)
        return supervised_loss(None)(model, batch)

    session.fit(start, loss, batches=drawn)
    assert [batch.image_BCIJK.equal(given.image_BCIJK) for batch, given in zip(seen, drawn, strict=True)] == [True, True]


def test_hooks_see_gradients_before_the_step_and_parameters_after_it(session: Session, start: dict[str, torch.Tensor]) -> None:
    name = next(key for key in start if key.endswith("conv.weight")).removeprefix("params/")
    seen: list[tuple[str, torch.Tensor]] = []

    def before(model: nn.Module) -> None:
        parameter = model.get_parameter(name)
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0
        seen.append(("before", parameter.detach().clone()))

    def after(model: nn.Module) -> None:
        seen.append(("after", model.get_parameter(name).detach().clone()))

    session.fit(start, supervised_loss(None), before_step=before, after_step=after)
    assert [when for when, _ in seen] == ["before", "after"] * 2
    assert not seen[0][1].equal(seen[1][1])
    assert seen[1][1].equal(seen[2][1])


def test_the_patches_of_the_proxy_are_the_same_at_every_site_and_at_the_server(clients: list[Client], server: Client) -> None:
    here, there, above = ([b.image_BCIJK for b in Session(c, 1, {}).proxy_patches(2)] for c in (*clients, server))
    assert all(a.equal(b) and a.equal(c) for a, b, c in zip(here, there, above, strict=True))


def test_the_patches_of_the_proxy_change_from_round_to_round(clients: list[Client]) -> None:
    first, second = (Session(clients[0], number, {}).proxy_patches(1)[0].image_BCIJK for number in (0, 1))
    assert not first.equal(second)


def test_the_patches_of_the_proxy_have_no_label(session: Session) -> None:
    (batch,) = session.proxy_patches(1, batch_size=3)
    assert batch.num_labelled == 0 and len(batch.image_BCIJK) == 3 and len(batch.label_BIJK) == 0


def test_the_server_works_on_the_repository_s_cases(server: Client, scenario: Any) -> None:
    session = Session(server, 0, {})
    assert (session.client_id, session.num_unlabelled) == (SERVER, 0)
    assert session.num_labelled == scenario.repository.source.num_cases - scenario.repository.num_validation


def test_generators_differ_by_client_round_and_purpose(clients: list[Client]) -> None:
    draws = {
        float(torch.rand((), generator=Session(client, number, {}).generator(purpose)))
        for client in clients
        for number in (0, 1)
        for purpose in ("a", "b")
    }
    assert len(draws) == 8


def _fitted(load: Callable[..., Any], *overrides: str) -> tuple[Session, dict[str, torch.Tensor]]:
    """A session and the parameters that three steps of it give."""
    scenario = load("method={name: fedavg}", "training.optimiser=sgd", *overrides)  # Adam makes steps of noise
    client = Client.build(scenario, METHODS.get("fedavg")(scenario.method, scenario), scenario.members()[0], ROOT, "cpu")
    session = Session(client, 0, {})
    params, result = session.fit(state_of(client.fresh_network("student")), supervised_loss(None), num_steps=3)
    assert result.num_steps == 3
    return session, params


def _assert_close(params: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert params.keys() == expected.keys()
    for key, value in params.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-4, msg=key)


def _lie_by_channels(session: Session) -> bool:
    weights = [p for p in session._client.network_of("student").parameters() if p.dim() == 5 and p.shape[1] > 1]
    return all(w.is_contiguous(memory_format=torch.channels_last_3d) and not w.is_contiguous() for w in weights)


def test_channels_last_lays_tensors_otherwise_and_gives_the_same_numbers(load: Callable[..., Any]) -> None:
    plain, expected = _fitted(load)
    session, params = _fitted(load, "training.memory_format=channels_last_3d")
    assert _lie_by_channels(session) and not _lie_by_channels(plain)
    _assert_close(params, expected)
    assert all(value.equal(params[key]) for key, value in unseal(seal(params)).items())  # as they travel


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_gives_the_same_numbers(
    load: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    _, expected = _fitted(load)
    counters.clear()
    _, params = _fitted(load, "training.compile=true")
    assert counters["frames"]["ok"] and counters["stats"]["unique_graphs"]
    _assert_close(params, expected)
    torch.compiler.reset()


@pytest.mark.parametrize("is_on", [False, True])
def test_a_client_scores_its_test_cases_on_the_grid_of_a_finer_source_where_asked(load: Callable[..., Any], is_on: bool) -> None:
    scenario = load(
        "method={name: fedavg}", f"evaluation.native_grid={str(is_on).lower()}", "clients[0].spacing_mm=[20, null, null]"
    )
    method, (first, *_) = METHODS.get("fedavg")(scenario.method, scenario), scenario.members()
    client = Client.build(scenario, method, first, ROOT, "cpu")
    job = EvaluationJob(first.client_id, 0, None, has_surface=False, num_previews=0)
    rows = client.evaluate(job, {"global": state_of(client.fresh_network("student"))}).cases
    assert {row["split"] for row in rows} >= {"test"} and all(row["volume_native_mm3"] is not None for row in rows)
    assert all(("dsc_native" in row) == (is_on and row["split"] == "test") for row in rows)
