"""Payloads on disk: what is put there is what is read, damage is seen, and what nobody needs goes."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import pytest
import torch

from raykd.federation.behind import Behind
from raykd.federation.checkpoint import Checkpoints, State
from raykd.federation.shelf import EMPTY, Place, Shelf, ShelvedUploads
from raykd.federation.transport import seal, unseal
from raykd.numerics.params import Payload, weighted_mean
from raykd.results.durable import write_atomically


class OnDisk:
    """Writes the files of checkpoints."""

    def put(self, path: Path, content: bytes) -> None:
        write_atomically(path, content)

    def note(self, path: Path, sha256: str) -> None:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def payload(value: float, size: int = 3) -> Payload:
    return {"params/w": torch.full((size,), value), "control/c": torch.tensor([value, -value])}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "shelf")
    shelf.begin("one")
    return shelf


def value_of(shelf: Shelf, place: Place) -> float:
    return float(unseal(shelf.get(place))["params/w"][0])


def test_what_is_put_is_read_back_in_any_order(shelf: Shelf) -> None:
    places = [shelf.put(seal(payload(float(value), size=value + 1))) for value in range(5)]
    assert [value_of(shelf, place) for place in reversed(places)] == [4.0, 3.0, 2.0, 1.0, 0.0]
    assert torch.equal(unseal(shelf.get(places[3]))["control/c"], torch.tensor([3.0, -3.0]))


def test_nothing_takes_no_place(shelf: Shelf) -> None:
    assert shelf.put({}) is EMPTY and shelf.get(EMPTY) == {}


def test_another_process_reads_it_too(shelf: Shelf) -> None:
    place = shelf.put(seal(payload(7.0)))
    shelf.end().sync()
    assert value_of(Shelf(shelf.folder), place) == 7.0


def test_every_flipped_bit_and_every_truncation_is_seen(shelf: Shelf) -> None:
    shelf.put(seal({"params/w": torch.tensor([1.0])}))
    ended = shelf.end()
    pack, sha256 = ended.name, ended.sync()
    file, content = shelf.folder / pack, (shelf.folder / pack).read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        assert not shelf.is_sound(pack, sha256)
    for size in range(len(content)):
        file.write_bytes(content[:size])
        assert not shelf.is_sound(pack, sha256)
    file.write_bytes(content)
    assert shelf.is_sound(pack, sha256) and not shelf.is_sound("other.pack", sha256)


def test_a_pack_that_came_to_nothing_leaves_nothing(shelf: Shelf) -> None:
    shelf.put(seal(payload(1.0)))
    shelf.discard()
    assert not list(shelf.folder.iterdir())


def test_a_pack_whose_writing_failed_leaves_nothing_and_one_that_was_synced_stays(shelf: Shelf) -> None:
    shelf.put(seal(payload(1.0)))
    kept = shelf.end()
    kept.sync()
    for name in ("never-synced", "begun"):
        shelf.begin(name)
        shelf.put(seal(payload(2.0)))
        if name == "never-synced":
            shelf.end()
    shelf.discard()
    assert [path.name for path in shelf.folder.iterdir()] == [kept.name]


def test_packs_are_removed_in_another_thread_while_others_are_begun_and_read(shelf: Shelf) -> None:
    """What writing behind the driver's back does in a long run, as fast as it goes."""
    removing = Behind()
    places: list[Place] = []
    for number in range(200):
        places = [*places, shelf.put(seal(payload(float(number))))][-2:]
        removing.wait()
        shelf.end()
        removing.do(functools.partial(shelf.keep, {place.pack for place in places}))
        shelf.begin(f"next-{number:03d}")
        assert value_of(shelf, places[0]) == max(0, number - 1)
    removing.close(lambda: None)
    assert sorted(path.name for path in shelf.folder.iterdir()) == sorted({place.pack for place in places} | {"next-199.pack"})


def test_uploads_are_read_one_at_a_time_and_averaged_as_from_memory(shelf: Shelf) -> None:
    payloads = [payload(value) for value in (1.0, 2.5, -3.0)]
    entries = [(client_id, shelf.put(seal(sent)), 1, 2) for client_id, sent in enumerate(payloads)]
    uploads = ShelvedUploads(shelf, entries)
    assert [upload.client_id for upload in uploads[1:]] == [1, 2] and uploads[-1].num_unlabelled == 2
    mean = weighted_mean((upload.payload for upload in uploads), [1.0, 2.0, 3.0])
    assert all(torch.equal(mean[key], value) for key, value in weighted_mean(payloads, [1.0, 2.0, 3.0]).items())


def test_a_shelf_of_its_own_leaves_nothing_behind() -> None:
    shelf = Shelf(None)
    shelf.begin("one")
    shelf.put(seal(payload(1.0)))
    folder = shelf.folder
    assert list(folder.iterdir())
    shelf.close()
    assert not folder.exists()


def test_packs_of_rare_clients_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten clients, two a round: without packing anew, every pack would be kept for the last client that lies in it."""
    monkeypatch.setattr("raykd.federation.checkpoint.SLACK_BYTES", 0)
    checkpoints = Checkpoints(Shelf(tmp_path), OnDisk())
    state = State(payload(0.0))
    for round_index in range(200):
        checkpoints.begin(round_index)
        for client_id in range(10) if round_index == 0 else (round_index % 10, (7 * round_index) % 10):
            state.clients[client_id] = checkpoints.shelf.put(seal(payload(float(round_index), size=1000)))
        state.next_round = round_index
        checkpoints.saving(state)()
    lying = sum(path.stat().st_size for path in tmp_path.glob("*.pack"))
    needed = sum(place.num_bytes for place in state.clients.values())
    assert lying < 4 * needed
    found = Checkpoints(Shelf(tmp_path), OnDisk()).latest()
    assert found is not None and found.next_round == 199
    again = Shelf(tmp_path)
    assert [value_of(again, found.clients[client_id]) for client_id in range(10)] == [
        value_of(checkpoints.shelf, state.clients[client_id]) for client_id in range(10)
    ]
