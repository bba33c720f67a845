"""What every method promises. The methods are those that are there: a new file in raykd/methods is tested without being asked."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from raykd.federation.privacy_rules import privacy_problems
from raykd.federation.transport import unseal
from raykd.methods._base import Method, ServerStart, Upload
from raykd.numerics.params import KINDS
from raykd.scenario.errors import RaykdError
from raykd.scenario.registry import METHODS

Record = Callable[..., Any]
NAMES = METHODS.names()
every_method = pytest.mark.parametrize("name", NAMES)


def _is_federated(name: str) -> bool:
    cls: type[Method] = METHODS.get(name)
    return cls.is_trained and not cls.pools_data


def _method(name: str, *overrides: str, load: Callable[..., Any]) -> Method:
    scenario = load(f"method={{name: {name}}}", *overrides)
    method: Method = METHODS.get(name)(scenario.method, scenario)
    return method


def test_the_reference_method_and_its_controls_are_there() -> None:
    assert {"dual_kd", "fedavg", "finetune", "local", "centralised", "teacher_only"} <= set(NAMES)


@every_method
def test_registered_under_the_name_of_its_file(name: str) -> None:
    assert METHODS.get(name).__module__ == f"raykd.methods.{name}"


@every_method
def test_module_cites_its_source_or_says_what_it_is_a_control_for(name: str) -> None:
    text = inspect.getdoc(sys.modules[METHODS.get(name).__module__]) or ""
    assert re.search(r"https://|control|bound|[Ww]hat a site has", text), text


@every_method
def test_settings_need_no_more_than_the_name(name: str) -> None:
    assert METHODS.get(name).Settings(name=name).name == name


@every_method
def test_settings_refuse_unknown_keys(name: str) -> None:
    with pytest.raises(ValueError, match="no_such_key"):
        METHODS.get(name).Settings(name=name, no_such_key=1)


@every_method
def test_same_seed_gives_the_same_tables_in_whatever_order_clients_are_worked_through(
    name: str, record: Record, assert_same_tables: Callable[..., None]
) -> None:
    override = f"method={{name: {name}}}"
    assert_same_tables(record(override).outcome, record(override, again=True).outcome)


@every_method
def test_same_seed_gives_the_same_models_in_whatever_order_clients_are_worked_through(name: str, record: Record) -> None:
    override = f"method={{name: {name}}}"
    models = record(override).outcome.models
    assert models
    assert models == record(override, again=True).outcome.models


@every_method
def test_a_method_leaves_what_it_is_given_alone(name: str, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """State, download and the server's state are the same tensors with the same values after the method has seen them."""
    cls, spoilt = METHODS.get(name), []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            given = [argument for argument in args if isinstance(argument, dict)]
            before = [{key: value.clone() for key, value in payload.items()} for payload in given]
            result = function(*args)
            for payload, copy in zip(given, before, strict=True):
                is_same = payload.keys() == copy.keys() and all(value.equal(copy[key]) for key, value in payload.items())
                spoilt.extend([] if is_same else [function.__name__])
            return result

        return call

    for hook in ("local_update", "aggregate", "start_server", "update_server", "broadcast", "download", "init_client"):
        monkeypatch.setattr(cls, hook, watched(getattr(cls, hook)))
    record(f"method={{name: {name}}}", fresh=True)
    assert spoilt == []


@every_method
def test_another_seed_gives_other_models(name: str, record: Record) -> None:
    override = f"method={{name: {name}}}"
    one, other = record(override).outcome.models, record(override, "seed=8").outcome.models
    assert one.keys() == other.keys()
    assert [model for model in one if one[model] == other[model]] == []


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS.get(name).is_trained])
def test_training_moves_the_models(name: str, record: Record) -> None:
    """A run of two rounds ends elsewhere than one of a single round."""
    override = f"method={{name: {name}}}"
    short, long = record(override, "federation.rounds=1").outcome.models, record(override).outcome.models
    trained = [model for model in long if model != "teacher.safetensors"]
    assert trained
    assert [model for model in trained if short[model] == long[model]] == []


def _crossed(recording: Any, tensors_in: Callable[..., Any]) -> list[tuple[Any, ...]]:
    """What crossed the links, counted from the envelopes at the backend's seam: header, its length, and every array's bytes."""

    def rows(round_index: int, client_id: int, direction: str, envelope: Any) -> list[tuple[Any, ...]]:
        found = []
        for kind, blob in envelope.items():
            arrays = tensors_in({kind: blob})
            header = 8 + int.from_bytes(blob.tobytes()[:8], "little")
            num_bytes = header + sum(array.nbytes for array in arrays.values())
            found.append((round_index, client_id, direction, kind, sum(array.size for array in arrays.values()), num_bytes))
        return found

    method = METHODS.get(recording.scenario.method.name)
    if method.pools_data:
        return []
    found = []
    if recording.teacher is not None:
        found += [row for client_id in recording.clients for row in rows(-1, client_id, "down", recording.teacher)]
    dropped = recording.outcome.table("events").query("kind == 'dropout'")
    for round_index, (jobs, download, replies) in enumerate(recording.rounds):
        silent = dropped[dropped["round"] == round_index]["client_id"].tolist()
        for client_id in [job.client_id for job in jobs] + silent:
            found += rows(round_index, client_id, "down", download)
        for job in jobs:
            found += rows(round_index, job.client_id, "down", job.extra or {})
        for reply in replies:
            found += rows(round_index, reply.client_id, "up", reply.upload)
    return sorted(found)


@every_method
def test_transfers_hold_what_crossed_the_links_and_nothing_else(name: str, record: Record, tensors_in: Callable[..., Any]) -> None:
    recording = record(f"method={{name: {name}}}", "federation.client_dropout=0.5", "federation.rounds=3")
    columns = ["round", "client_id", "direction", "kind", "num_values", "num_bytes"]
    told = recording.outcome.table("transfers")[columns].itertuples(index=False, name=None)
    told, crossed = Counter(told), Counter(_crossed(recording, tensors_in))
    assert not crossed - told
    # What a method sends to one client alone is lost on a link that drops out, and so never comes to the seam.
    dropped = recording.outcome.table("events").query("kind == 'dropout'")
    silent = set(dropped[["round", "client_id"]].itertuples(index=False, name=None))
    assert all(row[2] == "down" and row[:2] in silent for row in told - crossed)


@every_method
def test_what_crosses_is_of_a_known_kind(name: str, record: Record, tensors_in: Callable[..., Any]) -> None:
    recording = record(f"method={{name: {name}}}")
    envelopes = [download for _, download, _ in recording.rounds] + [reply.upload for reply in recording.replies]
    for envelope in envelopes:
        for kind, blob in envelope.items():
            assert kind in KINDS
            assert kind in METHODS.get(name).kinds, f"{kind} is not among the kinds that {name} declares"
            assert all(key.startswith(f"{kind}/") for key in tensors_in({kind: blob}))


@pytest.mark.parametrize("name", [name for name in NAMES if _is_federated(name)])
def test_every_selected_client_trains_or_is_told_as_dropped_out(name: str, record: Record) -> None:
    outcome = record(f"method={{name: {name}}}", "federation.client_dropout=0.5", "federation.rounds=3").outcome
    keys = ["round", "client_id"]
    trained = set(outcome.table("training")[keys].itertuples(index=False, name=None))
    dropped = set(outcome.table("events").query("kind == 'dropout'")[keys].itertuples(index=False, name=None))
    assert dropped and trained
    assert not dropped & trained
    assert dropped | trained == {(round_index, client) for round_index in range(3) for client in range(3)}


@pytest.mark.parametrize("name", ["fedavg", "finetune", "local"])
def test_a_round_in_which_all_drop_out_changes_nothing(name: str, record: Record) -> None:
    """Under this seed all three clients are silent in round 2. (Of methods whose losses do not ramp with the number of rounds.)"""
    method, dropout = f"method={{name: {name}}}", "federation.client_dropout=0.5"
    three = record(method, dropout, "federation.rounds=3").outcome
    assert three.table("rounds")["num_completed"].tolist()[2] == 0
    assert three.models == record(method, dropout, "federation.rounds=2").outcome.models


def test_a_network_with_dropout_is_as_reproducible_as_one_without(record: Record) -> None:
    overrides = ("method={name: fedavg}", "student.network={name: unet, width: 4, dropout: 0.3}")
    assert record(*overrides).outcome.models == record(*overrides, fresh=True).outcome.models


def test_a_teacher_with_dropout_is_as_reproducible_as_one_without(record: Record) -> None:
    overrides = ("method={name: teacher_only}", "repository.teacher.network={name: unet, width: 4, dropout: 0.3}")
    assert record(*overrides).outcome.models == record(*overrides, fresh=True).outcome.models


@every_method
def test_a_site_without_labels_is_survived_or_refused_with_a_sentence(name: str, record: Record) -> None:
    try:
        outcome = record(f"method={{name: {name}}}", "clients[0].labels.num_shots=0").outcome
    except RaykdError as error:
        assert "label" in str(error) and len(str(error).splitlines()) == 1
    else:
        assert outcome.run.manifest["status"] == "done"
        assert outcome.table("clients")["num_labelled"].tolist() == [0, 0, 1]
        scores = outcome.table("cases").query("client_id in (0, 1) and split == 'test'")["dsc"]
        assert len(scores) and scores.notna().all()


@every_method
def test_a_site_that_outlines_one_class_of_two_is_survived(name: str, record: Record) -> None:
    outcome = record(f"method={{name: {name}}}", "clients[1].labels={num_shots: 1, classes: [tibial_cartilage]}").outcome
    assert outcome.table("clients")["label_classes"].astype(str).tolist()[2] == "tibial_cartilage"
    assert outcome.run.manifest["status"] == "done"
    assert all(np.isfinite(array).all() for model in outcome.models for array in outcome.tensors(model.split(".")[0]).values())


def _payloads(recording: Any) -> list[Upload]:
    replies = recording.rounds[0][2]
    return [Upload(reply.client_id, unseal(reply.upload), reply.num_labelled, reply.num_unlabelled) for reply in replies]


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS.get(name).is_trained])
def test_aggregate_leaves_its_inputs_alone(name: str, record: Record, load: Callable[..., Any]) -> None:
    recording = record(f"method={{name: {name}}}")
    method, uploads = _method(name, load=load), _payloads(recording)
    server = method.init_server(ServerStart(unseal(recording.rounds[0][1]), {}))
    inputs = [server, *(upload.payload for upload in uploads)]
    before = [{key: value.clone() for key, value in payload.items()} for payload in inputs]
    method.aggregate(server, uploads, 0)
    for payload, copy in zip(inputs, before, strict=True):
        assert payload.keys() == copy.keys()
        assert all(value.equal(copy[key]) for key, value in payload.items())


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS.get(name).is_trained])
def test_aggregate_keeps_nothing_on_the_method(name: str, record: Record, load: Callable[..., Any]) -> None:
    recording = record(f"method={{name: {name}}}")
    method, uploads = _method(name, load=load), _payloads(recording)
    server = method.init_server(ServerStart(unseal(recording.rounds[0][1]), {}))
    before = dict(vars(method))
    once = method.aggregate(server, uploads, 0)
    again = method.aggregate(server, uploads, 0)
    assert vars(method) == before
    assert once.keys() == again.keys()
    assert all(value.equal(again[key]) for key, value in once.items())


def test_teacher_only_sends_nothing_up(record: Record) -> None:
    transfers = record("method={name: teacher_only}").outcome.table("transfers")
    assert transfers["direction"].tolist() == ["down"] * 3
    assert transfers["kind"].tolist() == ["teacher"] * 3


def test_local_sends_nothing_at_all_from_a_cold_start(record: Record) -> None:
    assert record("method={name: local}").outcome.table("transfers").empty


def test_a_warm_local_start_is_counted_once_down_every_link(record: Record) -> None:
    transfers = record("method={name: local, is_warm: true}").outcome.table("transfers")
    found = transfers[["round", "client_id", "direction", "kind"]].itertuples(index=False, name=None)
    assert list(found) == [(-1, 0, "down", "params"), (-1, 1, "down", "params"), (-1, 2, "down", "params")]


@every_method
def test_noise_protects_what_a_method_uploads_or_is_refused(name: str, record: Record, load: Callable[..., Any]) -> None:
    """A new method is refused until it says what of its uploads noise may be added to; then its server must bear noise."""
    words = "privacy={client: {clip_norm: 1.0, noise_multiplier: 0.05}}"
    problems = list(privacy_problems(_method(name, words, load=load)))
    if problems:
        assert METHODS.get(name).noise == "none" and all(path == "privacy.client" for path, _ in problems)
        return
    short = ("federation.rounds=1", "evaluation.surface_metrics=never", "evaluation.previews=0")
    outcome = record(f"method={{name: {name}}}", words, *short).outcome
    assert all(np.isfinite(array).all() for model in outcome.models for array in outcome.tensors(model[:-12]).values())
    num_uploads = len(outcome.table("transfers").query("direction == 'up'")["client_id"].unique())
    assert len(outcome.table("privacy")) == num_uploads


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS.get(name).learns_by_gradients_alone])
def test_a_method_that_learns_by_gradients_alone_looks_at_nothing_else(name: str, record: Record) -> None:
    """Under noise on gradients a site refuses every other look at its cases, which would end the run."""
    short = ("federation.rounds=1", "evaluation.surface_metrics=never", "evaluation.previews=0")
    words = "privacy={records: {max_grad_norm: 1.0, noise_multiplier: 1.0}}"
    outcome = record(f"method={{name: {name}}}", words, *short).outcome
    books = outcome.table("privacy")
    assert books["num_releases"].tolist() == outcome.table("training")["num_steps"].tolist()
