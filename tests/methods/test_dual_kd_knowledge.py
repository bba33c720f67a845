"""`dual_kd` without its teacher's weights: what travels instead, what a site makes of it, and the preset of the published code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.federation.session import Session
from raykd.methods import _knowledge
from raykd.methods._dual_kd_objective import at_step
from raykd.methods._dual_kd_settings import DualKDSettings
from raykd.methods._knowledge import gather_features, gather_responses, proxy_batches
from raykd.numerics.dual_distillation import DualDistillation
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload
from raykd.numerics.thinned_labels import Kept
from raykd.scenario.errors import RaykdError

Record = Callable[..., Any]
TensorsIn = Callable[[Any], dict[str, np.ndarray]]
FEATURES = "method={name: dual_kd, knowledge: features, knowledge_patches: 4}"
RESPONSES = "method={name: dual_kd, knowledge: responses, knowledge_patches: 4, mask: none}"
BOTH = "method={name: dual_kd, knowledge: [features, responses], knowledge_patches: 4, mask: none}"
ALL = "method={name: dual_kd, knowledge: [model, features, responses], knowledge_patches: 4, num_passes: 0, adapt_steps: 1}"
ONE_ROUND = "federation.rounds=1"
UNLABELLED = "clients[0].labels.num_shots=0"


def _before(recording: Any) -> dict[str, int]:
    """Bytes by kind that the first client got before the first round."""
    table = recording.outcome.table("transfers").query("round == -1 and client_id == 0")
    return dict(zip(table["kind"].astype(str), table["num_bytes"].tolist(), strict=True))


def test_features_take_kilobytes_and_no_weights(record: Record, tensors_in: TensorsIn) -> None:
    """Means and variances of 3 classes of the teacher's 8 channels, 3 counts, and a cosine and a count for each of 3 pairs."""
    recording = record(FEATURES, ONE_ROUND)
    assert set(_before(recording)) == {"prototypes"}
    sent = tensors_in(recording.teacher)
    assert sum(array.size for array in sent.values()) == 2 * 3 * 8 + 3 + 2 * 3
    assert _before(recording)["prototypes"] < 1024


def test_responses_take_half_precision_and_a_byte_for_each_class_kept(record: Record) -> None:
    """4 patches of 8 x 16 x 16 voxels, 2 classes of 3 bytes each, and a header."""
    before = _before(record(RESPONSES, ONE_ROUND))
    assert set(before) == {"logits"}
    assert 0 <= before["logits"] - 4 * 8 * 32 * 32 * 2 * 3 < 300


def test_combinations_travel_together_and_are_learnt_from_together(record: Record) -> None:
    recording = record(ALL, ONE_ROUND)
    assert set(_before(recording)) == {"teacher", "prototypes", "logits"}
    losses = recording.outcome.table("training")
    for term in ("supervised", "response", "alignment", "affinity", "proxy"):
        assert (losses[f"loss_{term}"].dropna() > 0).any(), term


def test_what_leads_to_the_teachers_channels_stays_at_the_site(record: Record, tensors_in: TensorsIn) -> None:
    for reply in record(FEATURES, ONE_ROUND).replies:
        assert set(reply.state) == {"control"}
        assert set(reply.upload) == {"params"}
        assert tensors_in(reply.state)["control/decoder_1.weight"].shape == (8, 4, 1, 1, 1)


def test_sent_features_without_weight_are_fedavg(record: Record) -> None:
    off = FEATURES.replace("}", ", feature_weight: 0}")
    one, other = (
        record(method, ONE_ROUND).outcome.tensors("global") for method in (off, "method={name: fedavg, weighting: uniform}")
    )
    assert max(float(np.abs(one[key] - other[key]).max()) for key in other) < 1e-6


def test_a_site_without_labels_learns_from_responses_and_idles_with_features_alone(record: Record) -> None:
    outcome = record(RESPONSES, UNLABELLED, ONE_ROUND).outcome
    first = outcome.table("training").query("client_id == 0").iloc[0]
    assert first["loss_proxy"] > 0
    assert not first.get("loss_supervised", math.nan) > 0
    events = record(FEATURES, UNLABELLED, ONE_ROUND).outcome.table("events")
    assert set(events.query("kind == 'idle'")["client_id"]) == {0, 1}


def test_server_and_sites_look_at_the_same_proxy_patches_in_every_round(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, seen = Session.proxy_patches, {}

    def spy(self: Session, *args: Any, **options: Any) -> list[Batch]:
        drawn = honest(self, *args, **options)
        seen[self.client_id, self.round_index] = torch.cat([batch.image_BCIJK for batch in drawn])
        return drawn

    monkeypatch.setattr(Session, "proxy_patches", spy)
    record(RESPONSES, fresh=True)
    assert set(seen) == {(-1, -1), *((client, number) for client in range(3) for number in range(2))}
    assert all(images.equal(seen[-1, -1]) for images in seen.values())


def test_a_teacher_that_knows_some_classes_sends_nothing_of_the_others(record: Record, tensors_in: TensorsIn) -> None:
    """Class 2 is no class of the repository's, and no most probable one with any probability."""
    sent = tensors_in(record(BOTH, ONE_ROUND, "repository.classes=[femoral_cartilage]").teacher)
    assert sent["prototypes/count_C.decoder_1"][2] == 0
    assert sent["prototypes/count_C.decoder_1"][:2].min() > 0
    assert (sent["logits/values"][sent["logits/classes"] == 2] == 0).all()


@pytest.mark.parametrize("setting", ["start: warm", "trust: true", "teacher: adapted", "feature: attention", "labelled: adjusted"])
def test_what_needs_the_teacher_at_the_site_is_refused_without_it(load: Callable[..., Any], setting: str) -> None:
    with pytest.raises(RaykdError, match="must have a teacher or its weights at the sites"):
        load(f"method={{name: dual_kd, knowledge: features, {setting}}}")


def test_responses_that_nothing_learns_from_or_that_have_no_images_are_refused(load: Callable[..., Any], record: Record) -> None:
    with pytest.raises(RaykdError, match="choose a response"):
        load("method={name: dual_kd, knowledge: responses, response: none}")
    with pytest.raises(RaykdError, match="add `proxy"):
        record(RESPONSES, "proxy=null")


# What the server gathers, and what a site reads of it.


class Echo:
    """A teacher whose features are the image, and whose logits are those of class 1 in proportion to it."""

    def __call__(self, image_BCIJK: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(image_BCIJK), image_BCIJK, -image_BCIJK], dim=1)

    def forward_with_features(self, image_BCIJK: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        return self(image_BCIJK), dict.fromkeys(layers, image_BCIJK)


def _patches(number: int, label: list[int] | None = None) -> Batch:
    image = torch.tensor([[1.0, 2.0, 4.0, 9.0], [3.0, 2.0, 6.0, 0.0]]).view(2, 1, 1, 1, 4) + number
    label_BIJK = torch.tensor(label or []).view(-1, 1, 1, 4)
    return Batch(image, label_BIJK, len(label_BIJK), spacing_mm_B3=torch.ones(2, 3))


@dataclass
class Place:
    """A server or a site."""

    num_classes: int = 3
    teacher_classes: tuple[int, ...] | None = None
    handed_out: Payload = field(default_factory=dict)
    annotated: tuple[int, ...] | None = None

    def patches(self, num_batches: int, *, purpose: str) -> Iterator[Batch]:
        return iter([_patches(number, [0, 0, 1, 255, 0, 0, 1, 0]) for number in range(num_batches)])

    def proxy_patches(self, num_batches: int, batch_size: int = 2, *, round_index: int | None = None) -> list[Batch]:
        assert round_index == -1
        return [_patches(number) for number in range(num_batches)]

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(3)


def test_statistics_are_those_of_all_patches_together() -> None:
    """Class 0 has 1, 2, 3, 2, 0 and each one more; class 1 has 4, 6, 5, 7; class 2 nothing. Of one channel all cosines are 1."""
    sent = gather_features(Place(), Echo(), ("x",), 4)  # type: ignore[arg-type]
    first = np.array([1, 2, 3, 2, 0, 2, 3, 4, 3, 1])
    assert sent["prototypes/mean_CF.x"].flatten().tolist() == pytest.approx([first.mean(), 5.5, 0.0], abs=1e-6)
    assert sent["prototypes/variance_CF.x"].flatten().tolist() == pytest.approx([first.var(), 1.25, 0.0], abs=1e-5)
    assert sent["prototypes/count_C.x"].tolist() == [10.0, 4.0, 0.0]
    assert sent["prototypes/cosine.x"].tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert sent["prototypes/num_patches.x"].tolist() == [4.0, 0.0, 0.0]


def test_a_site_finds_each_soft_label_with_its_own_patch() -> None:
    site = Place(handed_out=gather_responses(Place(), Echo(), 6, Kept(num_classes=3)))  # type: ignore[arg-type]
    stream = proxy_batches(site)  # type: ignore[arg-type]
    drawn = [next(stream) for _ in range(6)]
    assert {int(batch.image_BCIJK[0].flatten()[0]) for batch in drawn[:3]} == {1, 2, 3}
    for batch in drawn:
        assert batch.soft_label_BLIJK is not None
        torch.testing.assert_close(batch.soft_label_BLIJK, torch.softmax(Echo()(batch.image_BCIJK), dim=1), atol=2e-3, rtol=0)


def test_a_soft_label_of_a_teacher_that_knows_some_classes_has_the_others_in_its_background() -> None:
    place = Place(teacher_classes=(1,))
    place.handed_out = gather_responses(place, Echo(), 2, Kept(num_classes=3))  # type: ignore[arg-type]
    batch = next(proxy_batches(place))  # type: ignore[arg-type]
    probs = torch.softmax(Echo()(batch.image_BCIJK), dim=1)
    expected = torch.stack([probs[:, 0] + probs[:, 2], probs[:, 1], torch.zeros_like(probs[:, 1])], dim=1)
    assert batch.soft_label_BLIJK is not None
    torch.testing.assert_close(batch.soft_label_BLIJK, expected, atol=2e-3, rtol=0)


def test_of_a_thinned_soft_label_the_site_learns_the_voxels_that_were_sent_and_no_others() -> None:
    """Half of 16 voxels a pair, the surest of the foreground; elsewhere a student may say what it likes."""
    site = Place(handed_out=gather_responses(Place(), Echo(), 4, Kept(share=0.5, num_classes=2)))  # type: ignore[arg-type]
    distillation, is_learnt = DualDistillation(response="dice_kl", feature="none", response_weight=1.0, feature_weight=0.0), 0
    stream = proxy_batches(site)  # type: ignore[arg-type]
    for batch in (next(stream), next(stream)):
        assert batch.entropy_BIJK is not None and batch.soft_label_BLIJK is not None
        is_sent = batch.entropy_BIJK.isfinite()[:, None]
        is_learnt += int(is_sent.sum())
        expected = torch.softmax(Echo()(batch.image_BCIJK), dim=1)
        torch.testing.assert_close(batch.soft_label_BLIJK * is_sent, expected * is_sent, atol=2e-3, rtol=0)
        logits = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
        moved = [float(distillation(logits + 3.0 * torch.randn(logits.shape) * where, {}, batch)["response"]) for where in
                 (torch.zeros(1), ~is_sent, is_sent)]  # fmt: skip
        assert moved[0] == pytest.approx(moved[1], rel=1e-6) and moved[2] != pytest.approx(moved[0], rel=1e-3)
    assert is_learnt == 8


def test_thinned_responses_weigh_what_their_voxels_do_and_are_learnt_from(record: Record) -> None:
    """A quarter of 4 x 8 x 32 x 32 voxels: 2 values of 2 bytes, 2 classes of 2 bits; a bit for every voxel; and a header."""
    recording = record(RESPONSES.replace("mask", "kept_share: 0.25, mask"), ONE_ROUND)
    num_voxels = 4 * 8 * 32 * 32
    assert 0 <= _before(recording)["logits"] - (num_voxels // 4 * (4 + 0.5) + num_voxels // 8) < 300
    assert (recording.outcome.table("training")["loss_proxy"] > 0).all()


def test_voxels_are_left_out_of_responses_alone(load: Callable[..., Any]) -> None:
    with pytest.raises(RaykdError, match="kept_share, kept_confidence and kept_within_mm are of responses"):
        load("method={name: dual_kd, kept_share: 0.5}")


def test_the_server_gathers_before_the_first_round() -> None:
    assert _knowledge.BEFORE == -1


# The preset of the published code; "row n" is a decision of table A11 of the notes on methods.

CODE = DualKDSettings(name="dual_kd", preset="paper-code")
INTENT = DualKDSettings(name="dual_kd", preset="paper-intent")


def _at(settings: DualKDSettings, step: int, num_steps: int = 120) -> DualDistillation:
    start = DualDistillation(response="softmax_mse", feature="none", response_weight=0.07, feature_weight=1.0, max_entropy=0.9)
    return at_step(settings, start, step, SimpleNamespace(num_steps=num_steps, num_classes=4))  # type: ignore[arg-type]


def test_rows_7_and_9_the_threshold_is_of_two_classes_and_all_but_stands_still() -> None:
    """exp(-5) is 0.0067: (0.75 + 0.25 * 0.0067) ln 2 = 0.521, and after 119 steps of 12150 hardly more."""
    first, last = _at(CODE, 0).max_entropy, _at(CODE, 119).max_entropy
    assert first == pytest.approx((0.75 + 0.25 * math.exp(-5)) * math.log(2))
    assert last == pytest.approx(0.521, abs=1e-3)
    assert last > first


def test_row_10_the_weight_rises_anew_in_every_round() -> None:
    weights = [_at(CODE, step, num_steps=4).response_weight for step in range(4)]
    assert weights == pytest.approx([0.1 * math.exp(-5 * (1 - step / 4) ** 2) for step in range(4)])


def test_rows_7_9_and_10_the_text_ramps_over_the_federation() -> None:
    assert (_at(INTENT, 3).response_weight, _at(INTENT, 3).max_entropy) == (0.07, 0.9)


def test_row_8_the_squared_error_is_divided_by_two_whatever_the_number_of_classes() -> None:
    """Student (1/2, 1/2, 0, 0), teacher (1, 0, 0, 0): squares sum to 1/2; by 2 in the code, by 4 in the text."""
    soft = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1, 1)
    batch = Batch(soft, torch.zeros(0, 1, 1, 1), 0, soft_label_BLIJK=soft, entropy_BIJK=torch.zeros(1, 1, 1, 1))
    logits = torch.tensor([0.0, 0.0, -50.0, -50.0]).view(1, 4, 1, 1, 1)
    for settings, expected in ((CODE, 0.25), (INTENT, 0.125)):
        options = {"response_options": settings.response_options(), "response_weight": 1.0, "feature_weight": 1.0}
        terms = DualDistillation(response=settings.get("response"), feature="none", **options)(logits, {}, batch)
        assert float(terms["response"]) == pytest.approx(expected)


def test_the_published_code_runs_and_learns_something_else_than_its_text(record: Record) -> None:
    equal, rest = "student.network={name: unet, width: 8}", "num_passes: 0, mask: none, ema_start_round: 9"
    code, text = (
        record(f"method={{name: dual_kd, preset: {preset}, {rest}}}", equal, ONE_ROUND).outcome.table("training")["loss_response"]
        for preset in ("paper-code", "paper-intent")
    )
    assert (code > 0).all()
    assert code.tolist() != text.tolist()
