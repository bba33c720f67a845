"""Ids that name persons, however they are written."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """An id, and by whose numbering it is one.

    Attributes:
        population: names the numbering.
        patient_id: in `canonical` form.
        issuer: who gave the id, where that is known; an unknown issuer may be any.
    """

    population: str
    patient_id: str
    issuer: str = ""


def canonical(patient_id: str) -> str:
    """An id without what people and programs write differently: case, blanks, hyphens, leading zeros, the `sub-` of BIDS."""
    text = unicodedata.normalize("NFKC", patient_id).strip().casefold().removeprefix("sub-")
    return re.sub(r"(?<![\d.])0+(?=\d)", "", re.sub(r"[\s_-]+", "_", text))
