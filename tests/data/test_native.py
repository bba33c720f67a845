"""The reference on the source's own grid: over the same part of the body, in the same place, or none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from raykd.data.case import LABEL_UNKNOWN, Case, affine_from_spacing
from raykd.data.heterogeneity.resolution import crop_field_of_view, resample_case
from raykd.data.native import NativeReferences, native_reference, native_volume_mm3, with_native_volumes

LINE = torch.tensor([0, 1, 0, 0, 1, 1, 255], dtype=torch.uint8).reshape(-1, 1, 1)
CLASSES = ("ventricle", "absent")


def _native(label: torch.Tensor = LINE) -> Case:
    shape = (label.shape[0], label.shape[1], label.shape[2])
    return Case("c", "p", torch.rand(1, *shape), label, affine_from_spacing((1.0, 2.0, 3.0), shape))


def test_a_thin_structure_is_there_on_the_native_grid_alone() -> None:
    native = _native()
    site = resample_case(native, (2.0, None, None))
    # Three voxels of 2 mm are centred on seven of 1 mm, and cover half of the first, halves of others, and half of the last.
    reference = native_reference(native, site)
    assert site.shape == (3, 1, 1) and reference is not None and reference.spacing_mm == (1.0, 2.0, 3.0)
    assert reference.label_IJK.flatten().tolist() == [0, 1, 0, 0, 1, 1, LABEL_UNKNOWN]
    recorded = with_native_volumes(site, native, CLASSES)
    assert native_volume_mm3(recorded, "ventricle") == 3 * 6.0 and native_volume_mm3(recorded, "absent") == 0.0


def test_probabilities_are_interpolated_between_centres_and_go_on_beyond_the_outer_ones() -> None:
    native = _native(LINE[:6])
    site = resample_case(native, (2.0, None, None))
    reference = native_reference(native, site)
    assert reference is not None
    # Centres of the site lie at 0.5, 2.5 and 4.5 voxels: 0.9 becomes 0.225, 0.675, 0.675, 0.225 at voxels 1 to 4.
    foreground = torch.tensor([0.0, 0.9, 0.0]).reshape(1, 3, 1, 1)
    assert reference.resampled(torch.cat([1 - foreground, foreground])).flatten().tolist() == [0, 0, 1, 1, 0, 0]
    expected = [[1, 0, 0], [0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25], [0, 0.25, 0.75], [0, 0, 1]]
    torch.testing.assert_close(reference.weights[0], torch.tensor(expected))


def test_the_reference_covers_what_the_site_covers() -> None:
    label = torch.zeros((12, 8, 6), dtype=torch.uint8)
    label[::2] = 1
    native = _native(label)
    site = resample_case(crop_field_of_view(native, (6.0, None, 12.0)), (None, 4.0, 6.0))
    reference = native_reference(native, site)
    assert reference is not None and site.shape == (6, 4, 2)
    assert torch.equal(reference.label_IJK, label[3:9, :, 1:5])
    # A label that the site has exactly comes back exactly, for it does not vary along the axes that were made thicker.
    one_hot = torch.stack([site.label_IJK == c for c in (0, 1)]).float()  # type: ignore[union-attr]
    assert torch.equal(reference.resampled(one_hot), reference.label_IJK)


@pytest.mark.parametrize("spacing_mm", [(None, None, None), (1.0, 2.0, 3.0), (0.5, 1.0, 1.0), (0.5, None, None)])
def test_there_is_no_reference_where_the_source_is_not_finer(spacing_mm: tuple[float | None, ...]) -> None:
    native = _native()
    site = resample_case(native, spacing_mm)
    assert native_reference(native, site) is None
    assert with_native_volumes(site, native, CLASSES) is site and native_volume_mm3(site, "ventricle") is None


def test_there_is_no_reference_without_label_or_along_other_axes() -> None:
    native = _native()
    site = resample_case(native, (2.0, None, None))
    assert native_reference(replace(native, label_IJK=None), site) is None
    turned = site.affine.copy()
    turned[:3, :3] = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ turned[:3, :3]
    assert native_reference(native, replace(site, affine=turned)) is None


def test_a_reference_is_read_once_and_for_test_cases_alone() -> None:
    native, read = _native(), list[str]()

    def original(case: Case) -> Case:
        read.append(case.case_id)
        return native

    site, natives = resample_case(native, (2.0, None, None)), NativeReferences(original)
    assert natives.of(site, "validation") is None and read == []
    assert natives.of(site) is natives.of(site) is not None and read == ["c"]
    assert [tensor.numel() for tensor in natives.tensors] == [7]
    assert NativeReferences(None).of(site) is None
