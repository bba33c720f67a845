"""A repository that outlines some of the classes: what its teacher learns, says, is scored on, and hands to the sites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from raykd.data.federation import build_client_data, build_repository_data
from raykd.data.patches import TrainingCase
from raykd.federation.client import SERVER, Client
from raykd.federation.evaluation import support_scores
from raykd.federation.inference import predict_labels, predict_logits
from raykd.federation.knowledge import compute_knowledge
from raykd.federation.session import Session
from raykd.federation.teacher import model_key, repository_model, taught_classes
from raykd.federation.worker import Worker
from raykd.methods._context import KnowledgeRequest
from raykd.methods.dual_kd import DualKD
from raykd.models._base import build_network
from raykd.numerics.rng import generator
from raykd.scenario.errors import DataError
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.schema import Scenario

SOURCE = {"name": "phantom", "num_cases": 3, "spacing_mm": [10.0, 7.0, 7.0], "field_of_view_mm": [100.0, 112.0, 112.0]}
NETWORK = {"name": "unet", "width": 4}
CLASSES = ("femur", "tibia", "patella")
SCENARIO: dict[str, Any] = {
    "name": "partial",
    "seed": 3,
    "classes": list(CLASSES),
    "repository": {
        "source": SOURCE,
        "classes": ["patella", "femur"],
        "num_validation": 1,
        "teacher": {"network": NETWORK, "num_steps": 2, "patch_shape": [8, 16, 16]},
    },
    "clients": [
        {"group": "all", "source": SOURCE, "labels": {"num_shots": 1}, "num_test": 1},
        {"group": "some", "source": SOURCE, "labels": {"num_shots": 1, "classes": ["tibia"]}, "num_test": 1},
        {"group": "none", "source": SOURCE, "labels": {"num_shots": 0}, "num_test": 1},
        {
            "group": "rough",
            "source": SOURCE,
            "labels": {"num_shots": 1, "num_unlabelled": 1, "classes": ["femur"], "slices": 0.5, "noise": {"bias_mm": 6.0}},
            "num_test": 1,
        },
    ],
    "student": {"network": NETWORK},
    "method": {"name": "dual_kd", "preset": "raykd"},
    "training": {"patch_shape": [8, 16, 16], "num_local_steps": 1},
}
REPOSITORY_KNOWS = (1, 3)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYKD_CACHE", str(tmp_path_factory.mktemp("partial")))
        yield


def scenario(*overrides: str) -> Scenario:
    return scenario_from_dict(SCENARIO, Path("/"), overrides).scenario


def test_classes_are_named_by_their_labels_in_order() -> None:
    assert taught_classes(scenario()) == REPOSITORY_KNOWS
    assert taught_classes(scenario("repository.classes=null")) is None


def test_training_cases_lack_the_other_classes_and_held_out_ones_keep_them() -> None:
    data = build_repository_data(scenario(), Path("/"))
    labels = [set(case.label_IJK.unique().tolist()) for case in data.train if case.label_IJK is not None]
    assert labels == [{0, 1, 3}] * 2
    held_out = data.validation[0].label_IJK
    assert held_out is not None and set(held_out.unique().tolist()) == {0, 1, 2, 3}


def test_the_teacher_is_not_taught_that_the_others_are_background() -> None:
    """The gradient of the marginal loss moves background and a class never outlined by one rule, so that the rows of the last layer
    differ by no more than where they began; a teacher of all classes, with the same draws, pushes them apart.
    """
    partial = scenario("repository.teacher.num_steps=6", "repository.teacher.learning_rate=0.02")
    full = scenario("repository.teacher.num_steps=6", "repository.teacher.learning_rate=0.02", "repository.classes=null")
    assert model_key(partial, partial.student.network, Path("/")) != model_key(full, full.student.network, Path("/"))
    ratio = []
    for built in (partial, full):
        network = build_network(built.student.network, 4, 0)
        params = repository_model(built, built.student.network, Path("/")).params
        network.load_state_dict({name.removeprefix("params/"): value for name, value in params.items()})
        network.eval()
        (case,) = build_repository_data(built, Path("/")).validation
        assert case.label_IJK is not None
        image = (case.image_CIJK[0] - case.image_CIJK.mean()) / case.image_CIJK.std()
        probs = torch.softmax(predict_logits(network, image[None, None])[0], dim=0)
        air = case.label_IJK == 0
        ratio.append(float((probs[2] / (probs[0] + probs[2]))[air].mean()))
    assert ratio[0] > 2 * ratio[1]


def test_validation_rows_are_of_the_repository_s_own_classes() -> None:
    worker, built = Worker(lambda kind, **values: None), scenario()
    worker.open(built, Path("/"))
    rows = worker.train_on_repository(built.repository.teacher.network)[2].cases
    assert [(row["class_index"], row["class_name"]) for row in rows] == [(1, "femur"), (3, "patella")]


def test_what_a_teacher_predicts_of_classes_it_was_never_taught_is_background() -> None:
    network = build_network(scenario().student.network, 4, 0)
    image = torch.randn((4, 8, 8), generator=generator(0, "test"))
    probs = torch.softmax(predict_logits(network.eval(), image[None, None])[0], dim=0)
    expected = torch.stack([probs[0] + probs[2], probs[1], torch.zeros_like(probs[2]), probs[3]]).argmax(dim=0)
    found = predict_labels(network, image, known=REPOSITORY_KNOWS)
    assert torch.equal(found.long(), expected) and not bool((found == 2).any())
    assert bool((predict_labels(network, image) == 2).any())


def test_soft_labels_are_silent_on_them_too() -> None:
    network = build_network(scenario().student.network, 4, 0)
    image = torch.randn((4, 8, 8), generator=generator(0, "test"))
    case = TrainingCase("c", image, None, image.flatten(), {})
    every, some = (
        compute_knowledge(network, case, request=KnowledgeRequest(0, known=known), seed=0, version="v")
        for known in (None, REPOSITORY_KNOWS)
    )
    all_probs, probs = every.soft_label_LIJK.float(), some.soft_label_LIJK.float()
    torch.testing.assert_close(probs[0], all_probs[0] + all_probs[2], atol=2e-3, rtol=0)
    assert not bool(probs[2].any())
    assert bool((some.entropy_IJK < every.entropy_IJK).all())


@pytest.mark.parametrize(
    ("name", "teacher", "expected"),
    [
        ("all", "frozen", REPOSITORY_KNOWS),
        ("all", "adapted", None),
        ("some", "adapted", (1, 2, 3)),
        ("some", "frozen", REPOSITORY_KNOWS),
        ("none", "adapted", REPOSITORY_KNOWS),
    ],
)
def test_an_adapted_teacher_knows_what_its_site_outlines_as_well(name: str, teacher: str, expected: tuple[int, ...] | None) -> None:
    built = scenario(f"method.teacher={teacher}")
    method = DualKD(built.method, built)
    (member,) = (member for member in built.members() if member.name == name)
    client = Client(built, method, member, build_client_data(built, member, Path("/")))
    session = Session(client, 0, {})
    assert session.teacher_classes == REPOSITORY_KNOWS
    assert method._known(session) == expected


def test_a_rough_site_s_training_labels_are_its_own_and_its_test_is_the_truth() -> None:
    built = scenario()
    rough = next(member for member in built.members() if member.name == "rough")
    data = build_client_data(built, rough, Path("/"))
    (case,), (test,) = data.labelled, data.test
    assert case.label_IJK is not None and test.label_IJK is not None
    assert set(case.label_IJK.unique().tolist()) == {0, 1, 255} and set(test.label_IJK.unique().tolist()) == {0, 1, 2, 3}
    assert len(data.unlabelled) == 1
    # 10 slices of 10 mm across, every second outlined.
    assert case.record["label_budget.slices"] == "1 3 5 7 9" and case.record["label_budget.annotated"] == "1"
    known = case.label_IJK[1::2]
    assert not bool((known == 255).any()) and bool((case.label_IJK[::2] == 255).all())
    true_bias = scenario("clients[3].labels.noise={}")
    plain = build_client_data(true_bias, true_bias.members()[3], Path("/")).labelled[0].label_IJK
    assert plain is not None and int((known == 1).sum()) > 1.3 * int((plain[1::2] == 1).sum())


def test_trust_is_built_on_the_classes_that_evaluation_gives() -> None:
    """What the teacher says of classes that it was never taught is background there, too."""
    built = scenario()
    member = built.members()[0]
    client = Client(built, DualKD(built.method, built), member, build_client_data(built, member, Path("/")))
    teacher = {f"teacher/{name}": value for name, value in client.network_of("teacher").state_dict().items()}
    session, (case,) = Session(client, 0, teacher), client.labelled
    assert case.label_IJK is not None
    expected = predict_labels(client.load("teacher", teacher), case.image_IJK, (8, 16, 16), REPOSITORY_KNOWS)
    scores = session.support_scores(teacher, "teacher", REPOSITORY_KNOWS)
    assert scores == support_scores([(expected, case.label_IJK)], 3) != session.support_scores(teacher, "teacher")


@pytest.mark.parametrize(("client_id", "owner"), [(0, "all"), (SERVER, "repository")])
def test_a_tolerance_below_the_voxels_that_are_found_ends_a_run_before_it_trains(client_id: int, owner: str) -> None:
    worker = Worker(lambda kind, **values: None)
    worker.open(scenario("evaluation.nsd_tolerance_mm=6.9"), Path("/"))
    with pytest.raises(DataError, match=rf"^{owner}: evaluation.nsd_tolerance_mm .* got 6.9 mm .* with 7 mm"):
        worker.describe(client_id)
