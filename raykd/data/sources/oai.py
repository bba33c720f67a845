"""Knees of the Osteoarthritis Initiative with the outlines of iMorphics or of the Zuse Institute Berlin (OAI-ZIB).

Images are DICOM series as the OAI distributes them, `RELEASE/SUBJECT/DATE/BARCODE/001, 002, ...`; the release's first number is
the visit (0.C.2 is V00, the baseline; 1.C.2 is V01, 12 months), the series description tells sequence and side (SAG_3D_DESS_RIGHT).

iMorphics: `SUBJECT/VISIT/*.mat`, outlines of cartilages and menisci; entry n of `datastruct` belongs to file n of the series.
OAI-ZIB: `segmentation_masks/SUBJECT.segmentation_masks.mhd`, baseline, values 1 femur, 2 femoral cartilage, 3 tibia, 4 tibial
cartilage; the masks carry no pose, their axes run to the left, to the back and upwards; `doc/oai_mri_paths.txt` names every series.
Ambellan, Tack et al., Medical Image Analysis 2019, https://doi.org/10.1016/j.media.2018.11.009
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raykd.data.sources._contours import read_contours
from raykd.data.sources._dicom_series import SERIES_DESCRIPTION, read_series, read_slices, series_files, tag_of
from raykd.data.sources._files import FileSettings, FileSource, check_grid
from raykd.data.sources._labels import LabelNames
from raykd.data.sources._listing import CaseFiles
from raykd.data.sources._oai_paths import PathPattern, find_paths, read_mri_paths
from raykd.data.sources._patterns import no_image
from raykd.data.volume_io import LPS_TO_RAS, ImageVolume, blaming, read_volume, refusal, to_ras
from raykd.scenario.errors import DataError
from raykd.scenario.registry import SOURCES

NAMES: dict[str, LabelNames] = {
    "imorphics": {
        "femoral_cartilage": (1,),
        "tibial_cartilage": (2, 3),
        "lateral_tibial_cartilage": (2,),
        "medial_tibial_cartilage": (3,),
        "patellar_cartilage": (4,),
        "menisci": (5, 6),
        "lateral_meniscus": (5,),
        "medial_meniscus": (6,),
    },
    "zib": {
        "femur": (1,),
        "femoral_bone": (1,),
        "femoral_cartilage": (2,),
        "tibia": (3,),
        "tibial_bone": (3,),
        "tibial_cartilage": (4,),
    },
}


class OaiSettings(FileSettings):
    """Knees of the Osteoarthritis Initiative, outlined by iMorphics or the Zuse Institute Berlin; classes are matched by name."""

    name: Literal["oai"]
    collection: Literal["imorphics", "zib"]
    """Whose outlines."""
    images: str
    """The folder of DICOM series, as `results/00m` of an OAI package, searched at any depth."""
    masks: str
    """The folder of outlines, searched at any depth."""
    image_pattern: PathPattern = r"(?P<visit>\d{1,2})\.[A-Z]\.\d/(?P<subject>\d{7})/[^/]+/[^/]+$"
    """Regular expression searched in the path of a series' folder; a visit is a number or V and a number."""
    mask_pattern: PathPattern | None = None
    """The same for outlines; absent: SUBJECT/VISIT/*.mat for iMorphics, SUBJECT.segmentation_masks.mhd for OAI-ZIB."""
    series: str = "SAG_3D_DESS"
    """What the series description must begin with."""
    mri_paths: str | None = None
    """The list `doc/oai_mri_paths.txt` of OAI-ZIB, which tells the outlined knee where both are below `images`."""


@SOURCES.register("oai")
class OaiSource(FileSource):
    """Outlined knees of the OAI; all visits of a subject are one patient, who is the same in every source of this kind."""

    Settings = OaiSettings
    settings: OaiSettings
    names_file = "the collection"

    def place(self) -> str:
        return self.settings.masks

    def population(self) -> str:
        return "oai"

    def label_names(self) -> LabelNames:
        return NAMES[self.settings.collection]

    def find(self, problems: list[DataError]) -> Iterator[CaseFiles]:
        settings, is_zib = self.settings, self.settings.collection == "zib"
        zib, imorphics = r"(?P<subject>\d{7})\.segmentation_masks\.mhd$", r"(?P<subject>\d{7})/(?P<visit>V\d\d)/[^/]+\.mat$"
        pattern = settings.mask_pattern or (zib if is_zib else imorphics)
        masks = find_paths(self.root / settings.masks, pattern, "*.mhd" if is_zib else "*.mat")
        if not masks:
            rule = f"masks: {settings.masks!r} must hold outlines as {pattern}"
            raise DataError(f"{self.owner}: {rule}, got none in {self.root / settings.masks}; set masks or mask_pattern")
        folders = find_paths(self.root / settings.images, settings.image_pattern, "*/")
        listed = read_mri_paths(self.root / settings.mri_paths) if settings.mri_paths is not None else {}
        for (subject, visit), outlines in sorted(masks.items()):
            case_id = f"{subject}-{visit}"
            try:
                if len(outlines) > 1:
                    got = ", ".join(path.name for path in outlines)
                    raise refusal("a visit must have one file of outlines", path=outlines[0], case_id=case_id, got=got)
                ending = listed.get(subject, "")
                known = [folder for folder in folders.get((subject, visit), []) if folder.as_posix().endswith(ending)]
                image, description = self._series(case_id, known, outlines[0])
                side = next((side for side in ("left", "right") if side.upper() in description.upper()), "unknown")
                yield CaseFiles(case_id, subject, image, outlines[0], {"visit": visit, "side": side}, has_patient=True)
            except DataError as error:
                problems.append(error)

    def _series(self, case_id: str, folders: list[Path], mask: Path) -> tuple[Path, str]:
        """The one series of the wanted sequence, and its description."""
        found = [(folder, tag_of(folder, SERIES_DESCRIPTION, case_id)) for folder in folders if series_files(folder)]
        found = [(folder, text) for folder, text in found if text.upper().startswith(self.settings.series.upper())]
        if not found:
            raise no_image(case_id, mask, f"series {self.settings.series} below {self.root / self.settings.images}")
        if len(found) > 1:
            got = ", ".join(f"{folder} ({text})" for folder, text in found)
            hint = "narrow series, as SAG_3D_DESS_RIGHT, or image_pattern, or set mri_paths"
            raise refusal("an outline must have one series", path=mask, case_id=case_id, got=got, hint=hint)
        return found[0]

    def image_parts(self, files: CaseFiles) -> tuple[Path, ...]:
        return series_files(files.image)

    def read_image(self, files: CaseFiles) -> ImageVolume:
        return read_series(files.image, files.case_id)

    def read_label(self, files: CaseFiles, image: ImageVolume) -> NDArray[np.int32]:
        assert files.label is not None
        if self.settings.collection == "zib":
            values_IJK = read_volume(files.label, files.case_id, "label")[0]
        else:
            values_IJK = _outlined(files.label, files.image, files.case_id)
        check_grid(files, values_IJK.shape, image)
        return values_IJK


def _outlined(mask: Path, folder: Path, case_id: str) -> NDArray[np.int32]:
    """The structures that iMorphics outlined, on the grid of the series in RAS+."""
    ordered = read_slices(folder, case_id)
    num_columns, num_rows = ordered[0].size[:2]
    by_name = sorted(range(len(ordered)), key=lambda index: ordered[index].path.name)
    with blaming(mask, case_id):
        in_file_order_IJK = read_contours(mask, len(ordered), num_rows, num_columns)
        values_IJK = np.empty_like(in_file_order_IJK)
        values_IJK[:, :, by_name] = in_file_order_IJK
        turned_IJK, _ = to_ras(values_IJK, LPS_TO_RAS @ ordered[0].directions)
    return turned_IJK.astype(np.int32)
