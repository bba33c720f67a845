"""From a scan to a mask: each model is shown a scan as it was when it was scored, and the mask lies on the scan's own voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.data.heterogeneity.resolution import resample_case
from raykd.data.patches import normalise
from raykd.data.scan import Scan
from raykd.federation.inference import predict_labels
from raykd.federation.segmenter import Reading, model_network, model_reading, read_scan, segment, segment_file
from raykd.models._base import SegmentationNetwork, build_network
from raykd.models.unet import UNet
from raykd.numerics.rng import generator
from raykd.scenario.errors import DataError, RaykdError
from raykd.scenario.load import scenario_from_dict

FILES = {"name": "folder", "images": "a/*_img.nii", "labels": "a/*_seg.nii"}
SCENARIO: dict[str, Any] = {
    "name": "readings",
    "classes": ["one", "two"],
    "repository": {
        "source": {**FILES, "modality": "ct", "clip": [-100, 300]},
        "spacing_mm": 3.0,
        "classes": ["two"],
        "teacher": {"network": {"name": "unet", "width": 4}, "patch_shape": [8, 24, 24]},
    },
    "pools": {"shared": {"source": {**FILES, "clip": [-100, 300]}}},
    "clients": [
        {"group": "a", "source": {"name": "pool", "pool": "shared"}, "spacing_mm": [None, 2.0, 2.0]},
        {"group": "b", "source": {**FILES, "clip": [-100, 300]}, "sampling": {"slice_profile": "gaussian"}, "spacing_mm": 4.0},
    ],
    "student": {"network": {"name": "unet", "width": 4}},
    "method": {"name": "fedavg"},
    "training": {"patch_shape": [8, 16, 16]},
}
OWN = "clients[1].training={patch_shape: [16, 16, 16]}"
WIDER = "clients[1].source.clip=[-200, 300]"


def reading(model: str, *overrides: str, site: str | None = None) -> Reading:
    return model_reading(scenario_from_dict(SCENARIO, Path("/"), overrides).scenario, model, site)


RANGE = (-100.0, 300.0)


@pytest.mark.parametrize(
    ("model", "site", "expected"),
    [
        ("personal-a", None, Reading((8, 16, 16), None, RANGE, (None, 2.0, 2.0))),
        ("personal-b", None, Reading((16, 16, 16), None, RANGE, (4.0, 4.0, 4.0), slice_profile="gaussian")),
        ("global", "b", Reading((16, 16, 16), None, RANGE, (4.0, 4.0, 4.0), slice_profile="gaussian")),
        ("teacher", None, Reading((8, 24, 24), (2,), RANGE, (3.0, 3.0, 3.0))),
        ("teacher", "a", Reading((8, 16, 16), (2,), RANGE, (None, 2.0, 2.0))),
    ],
)
def test_a_model_is_shown_scans_as_when_it_was_scored(model: str, site: str | None, expected: Reading) -> None:
    assert reading(model, OWN, site=site) == expected


def test_the_global_model_is_shown_scans_as_all_sites_do_or_a_site_must_be_chosen() -> None:
    assert reading("global") == Reading((8, 16, 16), None, RANGE)
    for words, told in ((OWN, r"\[16, 16, 16\] clip \[-100.0, 300.0\] at b"), (WIDER, r"clip \[-200.0, 300.0\] at b")):
        with pytest.raises(RaykdError, match=rf"differ from site to site .*{told}.*--site"):
            reading("global", words)
    with pytest.raises(RaykdError, match="there is no site 'bb'; did you mean 'b'"):
        reading("global", site="bb")


@pytest.mark.parametrize(
    ("model", "words", "width"),
    [
        ("global", (), 4),
        ("teacher", (), 12),
        ("global", ("method={name: finetune, network: teacher}",), 12),
        ("personal-a", ("method={name: finetune, network: teacher}",), 12),
        ("personal-b", ("method={name: local}", "clients[1].student={network: {name: unet, width: 8}}"), 8),
        ("personal-a", ("method={name: local}", "clients[1].student={network: {name: unet, width: 8}}"), 4),
    ],
)
def test_a_final_model_s_network_is_the_one_that_was_trained(model: str, words: tuple[str, ...], width: int) -> None:
    teacher = "repository.teacher.network.width=12"
    assert model_network(scenario_from_dict(SCENARIO, Path("/"), (teacher, *words)).scenario, model).width == width


class Bright(SegmentationNetwork):
    """Says class 1 where a voxel is brighter than the mean of its window."""

    layers = {"encoder_1": (1, 1, 1)}

    def __init__(self) -> None:
        super().__init__(None, 2)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, image_BCIJK: Tensor) -> Tensor:
        above = image_BCIJK - image_BCIJK.mean(dim=(2, 3, 4), keepdim=True)
        return torch.cat([-above, above], dim=1) * self.weight

    def forward_with_features(self, image_BCIJK: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        return self(image_BCIJK), {}


def _image(shape: tuple[int, int, int]) -> np.ndarray:
    return torch.randn(shape, generator=generator(0, "scan")).numpy() * 100


AXES = np.array([[0.0, 0.0, 2.0, -7.0], [-1.0, 0.0, 0.0, 30.0], [0.0, -1.5, 0.0, 12.0], [0.0, 0.0, 0.0, 1.0]])
"""I runs to the back in steps of 1 mm, J down in 1.5 mm, K to the right in 2 mm."""


def test_a_mask_lies_on_the_file_s_own_voxels(tmp_path: Path) -> None:
    """The network sees RAS: the axis to the right is the file's third, to the front its first, to the top its second."""
    stored, how = _image((12, 16, 10)), Reading(window=(8, 8, 8))
    nibabel.save(nibabel.Nifti1Image(stored, AXES), tmp_path / "scan.nii.gz")
    mask, affine = segment_file(Bright(), tmp_path / "scan.nii.gz", how)
    in_ras = torch.from_numpy(np.ascontiguousarray(stored.transpose(2, 0, 1)[:, ::-1, ::-1]))
    expected = predict_labels(Bright(), normalise(in_ras[None]), (8, 8, 8))
    assert np.array_equal(mask, expected.numpy()[:, ::-1, ::-1].transpose(1, 2, 0))
    assert np.allclose(affine, AXES) and 0 < mask.mean() < 1


def test_a_scan_is_clipped_and_brought_to_the_grid_of_the_site_first(tmp_path: Path) -> None:
    stored, affine = _image((12, 16, 10)), np.diag([1.0, 1.0, 1.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "scan.nii")
    how = Reading(window=(4, 4, 4), clip=(-50.0, 80.0), spacing_mm=(2.0, 2.0, None))
    clipped = Case("c", "c", torch.from_numpy(stored.clip(-50, 80))[None], None, affine)
    coarse = resample_case(clipped, (2.0, 2.0, None))
    scan = read_scan(tmp_path / "scan.nii", how)
    assert torch.equal(scan.case.image_CIJK, coarse.image_CIJK)
    labels = segment(Bright(), coarse.image_CIJK, how).labels_IJK.numpy()
    mask, _ = segment_file(Bright(), tmp_path / "scan.nii", how)
    assert np.array_equal(mask, labels.repeat(2, axis=0).repeat(2, axis=1)), "every voxel has the class of the one that covers it"


def test_voxels_beyond_the_last_whole_one_have_the_nearest_class() -> None:
    """Seven voxels of 1 mm are three of 2 mm around the same centre, half a voxel short at either end."""
    case = resample_case(Case("c", "c", torch.zeros(1, 7, 1, 1), None, np.eye(4)), (2.0, None, None))
    mask = Scan(case, np.eye(4), (7, 1, 1)).on_own_grid(torch.tensor([1, 2, 3], dtype=torch.uint8).view(-1, 1, 1))
    assert mask.shape == (7, 1, 1) and mask[0, 0, 0] == 1 and mask[-1, 0, 0] == 3 and sorted(set(mask.ravel())) == [1, 2, 3]


def test_a_constant_scan_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(_image((4, 4, 4)), np.eye(4)), tmp_path / "scan.nii")
    with pytest.raises(DataError, match=r"must not be constant, got 900.0 everywhere.*clip"):
        read_scan(tmp_path / "scan.nii", Reading(window=(4, 4, 4), clip=(900.0, 901.0)))


@pytest.mark.parametrize(("norm", "is_alike"), [("batch", True), ("group", False), ("instance", False)])
def test_only_batch_normalisation_answers_alike_in_windows_and_at_once(norm: str, is_alike: bool) -> None:
    """Beyond what a convolution reaches from a window's edge: the middle of one large window, seen with and without its rim."""
    network = build_network(UNet.Settings(name="unet", width=4, norm=norm), 3, 0).eval()
    image = torch.randn((1, 1, 8, 64, 64), generator=generator(1, "scan"))
    image[..., :16, :] += 3.0
    with torch.no_grad():
        whole, part = network(image)[0, ..., 32:56, 24:40], network(image[..., 16:, :])[0, ..., 16:40, 24:40]
    spread = float(whole.std())
    assert (float((whole - part).abs().max()) < 1e-3 * spread) == is_alike
