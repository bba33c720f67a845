"""Payloads as bytes and back, bit for bit; bytes counted as they are; time on the line by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raykd.federation.lines import link_seconds
from raykd.federation.transport import seal, sizes_of, transfer_rows, unseal
from raykd.numerics.params import Payload
from raykd.numerics.rng import generator
from raykd.scenario.sites import Link

LINK = Link(up_mbps=10.0, down_mbps=50.0, latency_ms=30.0)


def payload() -> Payload:
    rng = generator(0, "payload")
    return {
        "teacher/w": torch.randn((3, 5), generator=rng),
        "params/w": torch.randn((2, 3, 4), generator=rng),
        "params/half": torch.randn(7, generator=rng).half(),
        "params/bfloat": torch.randn(3, generator=rng).bfloat16(),
        "params/double": torch.randn(3, generator=rng, dtype=torch.float64),
        "params/odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "params/empty": torch.zeros((0, 3)),
        "params/scalar": torch.tensor(2.5),
        "control/count": torch.tensor([1, -(2**40)]),
        "control/bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "control/flags": torch.tensor([True, False]),
    }


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def test_a_payload_comes_out_as_it_went_in_bit_for_bit() -> None:
    sent = payload()
    received = unseal(seal(sent))
    assert received.keys() == sent.keys()
    for key, value in sent.items():
        assert received[key].dtype == value.dtype and received[key].shape == value.shape and bits(received[key]) == bits(value)


def test_views_travel_as_they_look() -> None:
    turned = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(unseal(seal({"params/w": turned}))["params/w"], turned)


def test_received_tensors_are_the_receiver_s_own_and_may_be_written_to() -> None:
    sent = payload()
    envelope = seal(sent)
    for value in unseal(envelope).values():
        value.zero_()
    again = unseal(envelope)
    assert all(bits(again[key]) == bits(sent[key]) for key in sent)


def test_a_read_only_envelope_is_opened_too() -> None:
    # Ray hands out arrays that must not be written to.
    envelope = seal(payload())
    for blob in envelope.values():
        blob.flags.writeable = False
    opened = unseal(envelope)
    opened["params/w"].add_(1.0)
    assert torch.equal(opened["params/w"], payload()["params/w"] + 1.0)
    assert torch.equal(unseal(envelope)["params/w"], payload()["params/w"])


def test_there_is_one_blob_of_bytes_a_kind() -> None:
    envelope = seal(payload())
    assert set(envelope) == {"control", "params", "teacher"}
    assert all(blob.dtype == np.uint8 and blob.ndim == 1 for blob in envelope.values())


def test_equal_payloads_make_equal_bytes_whatever_the_order_of_keys() -> None:
    one, other = seal(payload()), seal(dict(reversed(payload().items())))
    assert all(np.array_equal(one[kind], other[kind]) for kind in one)


def test_keys_come_out_in_the_order_of_their_names_every_time() -> None:
    """safetensors orders them anew at every call: of 24 keys in ten calls, one in order by chance is out of the question."""
    payload = {f"params/{name}": torch.ones(1) for name in "mlkjihgfedcbazyxwvutsrqp"}
    assert all(list(unseal(seal(payload))) == sorted(payload) for _ in range(10))


def test_nothing_makes_an_empty_envelope() -> None:
    assert seal({}) == {} and unseal({}) == {}


@pytest.mark.parametrize("key", ["image/c-1", "labels/c-1", "w"])
def test_what_is_of_no_known_kind_does_not_travel(key: str) -> None:
    with pytest.raises(ValueError, match="payload key must be"):
        seal({"params/w": torch.zeros(1), key: torch.zeros(1)})


def test_a_transfer_counts_values_and_serialised_bytes_of_each_kind() -> None:
    envelope = seal(payload())
    rows = transfer_rows(sizes_of(envelope), round_index=4, client_id=2, direction="up", link=LINK)
    assert [(row["kind"], row["num_values"], row["num_bytes"]) for row in rows] == [
        ("control", 2 + 2 + 2, len(envelope["control"])),
        ("params", 24 + 7 + 3 + 3 + 4 + 0 + 1, len(envelope["params"])),
        ("teacher", 15, len(envelope["teacher"])),
    ]
    assert all((row["round"], row["client_id"], row["direction"], row["codec"]) == (4, 2, "up", "none") for row in rows)
    # What is counted is more than the tensors: 15 float32 and a header.
    assert rows[2]["num_bytes"] > 15 * 4


def test_a_message_of_several_kinds_waits_for_the_line_once() -> None:
    envelope = seal(payload())
    rows = transfer_rows(sizes_of(envelope), round_index=0, client_id=0, direction="up", link=LINK)
    num_bytes = sum(len(blob) for blob in envelope.values())
    assert sum(row["simulated_s"] for row in rows) == pytest.approx(8 * num_bytes / 10e6 + 0.030)


def test_seconds_on_a_link_by_hand() -> None:
    # 1 250 000 bytes are 10 Mbit: 1 s up at 10 Mbit/s, 0.2 s down at 50; the latency is 30 ms.
    assert link_seconds(1_250_000, "up", LINK) == pytest.approx(1.030)
    assert link_seconds(1_250_000, "down", LINK) == pytest.approx(0.230)
    assert link_seconds(1_250_000, "up", LINK, with_latency=False) == pytest.approx(1.0)
    assert link_seconds(0, "down", LINK) == pytest.approx(0.030)
