"""No client's image or label map crosses a link: everything at the backend's seam is opened and compared with what the clients
hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raykd.data.federation import build_client_data
from raykd.data.patches import normalise
from raykd.methods._base import LocalUpdate
from raykd.methods.fedavg import FedAvg
from raykd.numerics.params import TRAVELLING
from raykd.scenario.errors import RunFailed
from raykd.scenario.registry import METHODS

Record = Callable[..., Any]
TensorsIn = Callable[[Any], dict[str, np.ndarray]]
every_method = pytest.mark.parametrize("name", METHODS.names())
NUM_BYTES = 48
"""About how long a run of voxels is that is looked for in the raw bytes of a payload."""


def _volumes(scenario: Any) -> Iterator[np.ndarray]:
    """Every client's volumes: as acquired, as training sees them, and the label maps."""
    for member in scenario.members():
        data = build_client_data(scenario, member, Path.cwd())
        for case in data.labelled + data.unlabelled + data.validation + data.test:
            yield case.image_CIJK[0].numpy()
            yield normalise(case.image_CIJK).numpy()
            if case.label_IJK is not None:
                yield case.label_IJK.numpy()


def _telling_bytes(volume: np.ndarray) -> bytes:
    """The middle of a row along the last axis: of the middle one among the rows that hold most different values."""
    rows = np.ascontiguousarray(volume).reshape(-1, volume.shape[-1])
    variety = np.array([len(np.unique(row)) for row in rows])
    (most_varied,) = np.nonzero(variety == variety.max())
    row = rows[most_varied[len(most_varied) // 2]]
    spare = max(0, (row.nbytes - NUM_BYTES) // 2 // row.itemsize)
    return row[spare : len(row) - spare].tobytes()


def _crossing(recording: Any) -> Iterator[tuple[str, Any]]:
    """All envelopes that go down or up a link, with a word for where."""
    for round_index, (_, download, replies) in enumerate(recording.rounds):
        yield f"download of round {round_index}", download
        for reply in replies:
            yield f"upload of client {reply.client_id} in round {round_index}", reply.upload
    assert (recording.teacher is not None) == METHODS.get(recording.scenario.method.name).needs_teacher
    if recording.teacher is not None:
        yield "teacher", recording.teacher


def _leaks(recording: Any, tensors_in: TensorsIn) -> list[str]:
    volumes = list(_volumes(recording.scenario))
    shapes, sizes = {volume.shape for volume in volumes}, {volume.size for volume in volumes}
    runs = {_telling_bytes(volume) for volume in volumes}
    found = []
    for place, envelope in _crossing(recording):
        for key, array in tensors_in(envelope).items():
            if array.size in sizes or shapes & {array.shape[-3:]}:
                found.append(f"{place}: {key} has the size or shape of a client's volume, {array.shape}")
            if any(run in array.tobytes() for run in runs):
                found.append(f"{place}: {key} holds voxels of a client's volume")
    return found


@every_method
def test_nothing_that_crosses_looks_like_a_clients_volume(name: str, record: Record, tensors_in: TensorsIn) -> None:
    recording = record(f"method={{name: {name}}}")
    if METHODS.get(name).pools_data:
        assert recording.outcome.table("transfers").empty  # what would have to cross is not called a federation
    assert _leaks(recording, tensors_in) == []


@every_method
def test_everything_that_crosses_has_a_row_in_transfers(name: str, record: Record) -> None:
    recording = record(f"method={{name: {name}}}")
    if METHODS.get(name).pools_data:
        pytest.skip("pooled data do not travel on links")
    expected = set()
    for round_index, (jobs, download, replies) in enumerate(recording.rounds):
        expected |= {(round_index, job.client_id, "down", kind) for job in jobs for kind in download}
        expected |= {(-1, client_id, "down", kind) for client_id in recording.clients for kind in recording.teacher or {}}
        expected |= {(round_index, reply.client_id, "up", kind) for reply in replies for kind in reply.upload}
    told = recording.outcome.table("transfers")[["round", "client_id", "direction", "kind"]]
    assert expected <= set(told.itertuples(index=False, name=None))


@every_method
def test_everything_that_crosses_has_a_kind_that_is_no_image(name: str, record: Record, tensors_in: TensorsIn) -> None:
    recording = record(f"method={{name: {name}}}")
    keys = {key for _, envelope in _crossing(recording) for key in tensors_in(envelope)}
    assert {key.split("/")[0] for key in keys} <= set(TRAVELLING)


def _leaking(leak: Callable[[Any], torch.Tensor]) -> Callable[..., LocalUpdate]:
    honest = FedAvg.local_update

    def local_update(self: Any, context: Any, state: Any, download: Any) -> LocalUpdate:
        update = honest(self, context, state, download)
        case = context._client.data.labelled[0]
        return LocalUpdate(update.state, {**update.payload, "features/summary": leak(case)}, update.result)

    return local_update


@pytest.mark.parametrize(
    "leak",
    [
        lambda case: case.image_CIJK,
        lambda case: normalise(case.image_CIJK).half().flatten(),
        lambda case: case.label_IJK.float(),
        lambda case: case.image_CIJK[0, 4:8, :, 4:27].flatten(),
    ],
    ids=["image", "normalised image as a list in half precision", "label map", "part of an image"],
)
def test_a_leak_would_be_found(
    leak: Callable[[Any], torch.Tensor], record: Record, tensors_in: TensorsIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FedAvg, "local_update", _leaking(leak))
    monkeypatch.setattr(FedAvg, "kinds", ("params", "features"))
    found = _leaks(record("method={name: fedavg}", fresh=True), tensors_in)
    assert any("upload of client 0 in round 0: features/summary" in line for line in found)


def test_what_a_method_does_not_declare_ends_the_run(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FedAvg, "local_update", _leaking(lambda case: case.image_CIJK[0, :2, :2, :2]))
    with pytest.raises(RunFailed, match=r"\(up\) would have sent features/summary .* but method fedavg declares params"):
        record("method={name: fedavg}", fresh=True)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"params/image": torch.zeros(2, 2, 2)}, "params/image of shape .2, 2, 2., which is no entry"),
        ({"params/network.model.0.conv.bias": torch.zeros(99)}, "most values there: 8"),
    ],
)
@pytest.mark.parametrize("codecs", ["{}", "{up: {params: [{name: fp16}]}}"], ids=["plain", "coded"])
def test_parameters_that_no_network_has_end_the_run(
    extra: dict[str, torch.Tensor], said: str, codecs: str, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FedAvg.local_update

    def local_update(self: Any, *arguments: Any) -> LocalUpdate:
        update = honest(self, *arguments)
        return LocalUpdate(update.state, update.payload | extra, update.result)

    monkeypatch.setattr(FedAvg, "local_update", local_update)
    with pytest.raises(RunFailed, match=said):
        record("method={name: fedavg}", f"traffic={codecs}", fresh=True)


@every_method
def test_the_bytes_at_the_seam_are_those_of_the_tables(name: str, record: Record) -> None:
    """What goes through the backend, counted there, is what `transfers` says and what `crossings` is made of."""
    recording = record(f"method={{name: {name}}}")
    transfers, crossings = (recording.outcome.table(table) for table in ("transfers", "crossings"))
    if METHODS.get(name).pools_data:
        assert transfers.empty and crossings.empty
        return
    counted = {"down": 0, "up": 0}
    if recording.teacher is not None:
        counted["down"] += len(recording.clients) * sum(len(blob.tobytes()) for blob in recording.teacher.values())
    for jobs, download, replies in recording.rounds:
        for job in jobs:  # nobody drops out here
            counted["down"] += sum(len(blob.tobytes()) for blob in [*download.values(), *(job.extra or {}).values()])
        counted["up"] += sum(len(blob.tobytes()) for reply in replies for blob in reply.upload.values())
    for direction, num_bytes in counted.items():
        noted = crossings[crossings.direction == direction]
        assert transfers[transfers.direction == direction].num_bytes.sum() == num_bytes
        assert (noted.num_bytes * noted.num_messages).sum() == num_bytes
