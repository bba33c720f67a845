"""Messages: what is spared, what is lost and made good, what it weighs as serialised."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from raykd.codecs._base import Codec, CodecSettings, Coded
from raykd.federation.transport import Envelope, is_coded, seal, seal_coded, sizes_of, unseal
from raykd.models._base import build_network
from raykd.numerics.params import Payload, state_of
from raykd.numerics.rng import generator
from raykd.scenario.registry import CODECS, NETWORKS
from raykd.scenario.traffic import Codecs

TOP_1 = {"name": "top_k", "share": 0.01}
CHAINS: list[list[dict[str, Any]]] = [
    [{"name": "fp16"}],
    [{"name": "bf16"}],
    [{"name": "int8"}],
    [{"name": "qsgd", "num_levels": 7}],
    [TOP_1],
    [{**TOP_1, "indices": "int32"}],
    [TOP_1, {"name": "int8"}],
    [TOP_1, {"name": "qsgd"}],
    [{"name": "stc"}],
    [{"name": "power_sgd"}],
    [{"name": "power_sgd", "rank": 1}, {"name": "fp16"}],
]
every_chain = pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "+".join(block["name"] for block in chain))


def sent(payload: Payload, chain: list[dict[str, Any]], reference: Payload, memory: Payload) -> tuple[Envelope, Payload]:
    blocks = Codecs.model_validate({"params": tuple(chain)}).params
    return seal_coded(payload, {"params": blocks}, reference, memory, lambda kind: generator(0, "codec", kind))


def a_model() -> Payload:
    rng = generator(0, "model")
    model = {f"params/conv{index}.weight": torch.randn((8, 4, 3, 3, 3), generator=rng) for index in range(3)}
    return model | {"params/bias": torch.randn(8, generator=rng), "params/norm.num_batches_tracked": torch.tensor(7)}


def trained(model: Payload, step: int, size: float = 0.01) -> Payload:
    rng = generator(0, "step", step)
    return {
        key: value + size * torch.randn(value.shape, generator=rng) if value.is_floating_point() else value + 1
        for key, value in model.items()
    }


def test_no_codec_is_what_is_sealed_without_codecs_bit_for_bit() -> None:
    plain, coded = seal(a_model()), sent(a_model(), [], {}, {})
    assert coded[1] == {} and all((plain[kind] == coded[0][kind]).all() for kind in plain) and not is_coded(coded[0])


@every_chain
def test_biases_and_counts_arrive_as_they_are_and_types_and_shapes_are_kept(chain: list[dict[str, Any]]) -> None:
    held = a_model()
    update = trained(held, 0)
    update["params/double"] = torch.ones(4, 4, dtype=torch.float64)  # no change: the receiver holds none
    arrived = unseal(sent(update, chain, held, {})[0], held)
    assert {key: (value.shape, value.dtype) for key, value in arrived.items()} == {
        key: (value.shape, value.dtype) for key, value in update.items()
    }
    for key in ("params/bias", "params/norm.num_batches_tracked"):
        assert torch.equal(arrived[key], update[key])


@every_chain
def test_a_message_is_as_long_whatever_it_says(chain: list[dict[str, Any]]) -> None:
    held = a_model()
    lengths = {sizes_of(sent(new, chain, held, {})[0])["params"] for new in (held, trained(held, 0), trained(held, 1, 100.0))}
    ((num_values, num_bytes, codec),) = lengths
    assert num_values == 3 * 8 * 4 * 27 + 8 + 1 and codec == "+".join(block["name"] for block in chain)
    assert num_bytes < sizes_of(seal(held))["params"].num_bytes


@pytest.mark.parametrize("chain", [chain for chain in CHAINS if chain[0]["name"] in ("top_k", "stc", "power_sgd")], ids=str)
def test_what_is_not_sent_is_sent_later(chain: list[dict[str, Any]]) -> None:
    """Of every tensor, the decoded changes and what is left in memory add up to the changes that were made."""
    held, memory = a_model(), Payload()
    made, arrived = ({key: torch.zeros_like(value) for key, value in held.items() if value.ndim > 1} for _ in range(2))
    for step in range(4):
        update = trained(held, step)
        envelope, memory = sent(update, chain, held, memory)
        decoded = unseal(envelope, held)
        for key in made:
            made[key] += update[key] - held[key]
            arrived[key] += decoded[key] - held[key]
    for key, value in made.items():
        left = memory[f"memory/params/error.{key}"]
        assert left.norm() > 0.1 * value.norm()
        torch.testing.assert_close(arrived[key] + left, value, rtol=0, atol=1e-5)


def test_without_feedback_nothing_is_kept() -> None:
    held = a_model()
    assert sent(trained(held, 0), [{**TOP_1, "error_feedback": False}], held, {})[1] == {}
    assert sent(trained(held, 0), [{"name": "int8"}], held, {})[1] == {}


def test_power_iterations_go_on_where_they_were() -> None:
    """The same change again and again, without feedback: the second message is nearer to it than the first."""
    held, chain, memory, errors = a_model(), [{"name": "power_sgd", "error_feedback": False}], Payload(), []
    update = trained(held, 0)
    for _ in range(3):
        envelope, memory = sent(update, chain, held, memory)
        arrived = unseal(envelope, held)
        errors.append(sum(float((arrived[key] - update[key]).norm()) for key in update if update[key].ndim > 1))
    assert errors[0] > errors[1] > errors[2]


def test_changes_cannot_be_read_without_what_they_change() -> None:
    held = a_model()
    with pytest.raises(ValueError, match="beside what they change"):
        unseal(sent(trained(held, 0), [TOP_1], held, {})[0])


def test_a_part_of_a_model_is_read_beside_the_whole() -> None:
    held = a_model()
    part = {"params/conv1.weight": held["params/conv1.weight"] + 1.0}
    arrived = unseal(sent(part, [{"name": "int8"}], held, {})[0], held)
    assert arrived.keys() == part.keys()
    torch.testing.assert_close(arrived["params/conv1.weight"], part["params/conv1.weight"])


def test_soft_labels_in_half_precision_become_eight_bits_and_nothing_is_made_of_classes() -> None:
    values = torch.rand((4, 2, 8, 8, 8), generator=generator(0, "soft")).half()
    payload = {"logits/values": values, "logits/classes": torch.ones((4, 2, 8, 8, 8), dtype=torch.uint8)}
    for name, most in (("int8", 0.5 / 127), ("fp16", 0.0)):
        chains = {"logits": Codecs.model_validate({"logits": ({"name": name},)}).logits}
        arrived = unseal(seal_coded(payload, chains, {}, {}, lambda kind: generator(0, kind))[0])
        assert torch.equal(arrived["logits/classes"], payload["logits/classes"]) and arrived["logits/values"].dtype == torch.float16
        assert (arrived["logits/values"].float() - values.float()).abs().max() <= most + 2**-11 * most * 127


@pytest.mark.parametrize(
    ("network", "chain", "least"),
    [
        ("paper_vnet", [{"name": "fp16"}], 1.99),
        ("paper_vnet", [{"name": "int8"}], 3.8),
        ("paper_vnet", [TOP_1], 45.0),
        ("paper_vnet", [{"name": "power_sgd"}, {"name": "fp16"}], 25.0),
        ("unet", [{"name": "int8"}], 3.8),
        ("unet", [TOP_1], 45.0),
    ],
    ids=str,
)
def test_ratios_on_serialised_bytes(network: str, chain: list[dict[str, Any]], least: float) -> None:
    held = state_of(build_network(NETWORKS.get(network).Settings(name=network), 4, 0))
    whole, coded = seal(held)["params"], sent(trained(held, 0), chain, held, {})[0]["params"]
    assert whole.nbytes / coded.nbytes >= least


def test_rank_two_of_convolutions_with_five_cubed_kernels_is_31_times_smaller() -> None:
    """64 x 8000 numbers as 2 (64 + 8000): 31.7 times fewer; with one header a message, 31 times as serialised."""
    held = {f"params/{index}": torch.randn((64, 64, 5, 5, 5), generator=generator(0, "conv", index)) for index in range(2)}
    coded = sent(trained(held, 0), [{"name": "power_sgd", "rank": 2}], held, {})[0]["params"]
    assert 31.0 < seal(held)["params"].nbytes / coded.nbytes < 31.75


@pytest.mark.parametrize("name", CODECS.names())
def test_codecs_promise_what_a_chain_relies_on(name: str) -> None:
    """Nothing is kept on a codec, and the shapes that it names beforehand are those that it gives."""
    codec: Codec = CODECS.get(name)(settings := CODECS.get(name).Settings(name=name))
    values = {
        "a": torch.randn((16, 8, 3, 3, 3), generator=generator(0, "a")),
        "b": torch.randn((6, 5), generator=generator(0, "b")),
    }
    before = dict(vars(codec))
    coded = codec.encode(values, {}, generator(0, "draw"))
    shapes = {key: tuple(value.shape) for key, value in values.items()}
    assert isinstance(settings, CodecSettings) and isinstance(coded, Coded) and vars(codec) == before
    assert codec.shapes(shapes) == {key: tuple(value.shape) for key, value in coded.values.items()}
    arrived = codec.decode(coded.values, coded.parts, shapes)
    assert {key: tuple(value.shape) for key, value in arrived.items()} == shapes
    assert all(value.dtype == torch.float32 for value in arrived.values())
