"""The columns of a manifest: those that raykd knows, and those that were probably meant to be one of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

COLUMNS = ("image", "label", "case", "patient", "outlined", "absent")
"""What a manifest says of a case; every other column is a trait."""
SYNONYMS = {
    "image": "images img imgs scan scans volume volumes nii nifti file files filename filepath path imagepath imagefile imgpath "
    "画像",
    "label": "labels lbl labelpath labelfile labelmap mask masks maskpath maskfile seg segs segpath segfile segmentation "
    "segmentations annotation annotations gt groundtruth ラベル",
    "case": "cases caseid casename casenumber id imageid scanid 症例",
    "patient": "patients patientid patientname patientnumber patientno patid pid mrn subject subjects subjectid subj subjid "
    "participant participants participantid person personid patientenid patientennummer 患者 患者id 患者番号",
    "outlined": "outlinedclasses outlinedstructures annotatedclasses annotatedstructures",
    "absent": "absentclasses absentstructures",
}
"""What other tables call a known column, in lower case and without blanks, hyphens and underscores."""
LIKENESS = {"image": 0.78, "label": 0.78, "patient": 0.78, "outlined": 0.9, "absent": 0.9}
"""From 0 to 1, above which a name may be a misspelling of a known column; `outlier` is none of `outlined`, and a short word as
`case` is like too many."""


def looks_like(name: str, column: str) -> bool:
    """Whether a name is a synonym of a known column, or almost its name."""
    bare = re.sub(r"[\s_-]+", "", name.casefold())
    is_longer = column in bare and len(bare) > len(column) + 1  # patient_age is another word
    is_near = difflib.SequenceMatcher(None, bare, column).ratio() > LIKENESS.get(column, 1.0) and not is_longer
    return bare == column or bare in SYNONYMS[column].split() or is_near


def meant(names: Iterable[str], column: str) -> str:
    """The first of some names that looks like a known column, or ""."""
    return next((name for name in names if name not in COLUMNS and looks_like(name, column)), "")


def look_alikes(names: Collection[str]) -> dict[str, str]:
    """By known column that is missing, the name that is there in its place."""
    return {column: name for column in COLUMNS if column not in names and (name := meant(names, column))}


def meant_in_row(values: Mapping[str, Any], column: str) -> str:
    """The column of a row that holds what the known one lacks, or ""."""
    return "" if column in values else meant(values, column)
