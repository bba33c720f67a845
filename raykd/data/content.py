"""Notes on content that is allowed and rarely meant: volumes unlike the others', labels that mark nothing, another modality."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MAX_NAMED = 5
"""Cases, or classes, named in one note."""
EVERY_CLASS = "every class"
SAY_SO = (
    "if nobody looked for a class in a case, say so in a manifest's column 'outlined', and if it is known not to be there, in its "
    "column 'absent'"
)
MIN_CASES = 5
"""Cases with a class from which its volumes are compared."""
MIN_VOXELS = 30
"""Of a class's median: smaller ones differ by what one voxel more or less makes."""
OUTLIER_FACTOR, OUTLIER_SPREADS = 3.0, 5.0
"""An outlier of volume is more than so many times the median or less than its inverse, and so many spreads away in logarithm."""
CT_AIR_HU = -500.0
"""What air around or within a body is darker than in CT, and nothing is in MR."""

Classes = Mapping[str, tuple[int, ...]]
"""The values that mark each class, by its name."""


@dataclass(frozen=True)
class CaseFacts:
    """What reading a case showed.

    Attributes:
        owner, case_id, patient_id: whose case it is.
        shape, spacing_mm: along I, J, K.
        contents: digests of the image's voxels in RAS+ and of its file: what renaming, or packing anew, does not change.
        voxels: number of voxels of each label value; None: no label.
        darkest: the lowest intensity.
        outlined, absent: as in `Case`.
    """

    owner: str
    case_id: str
    patient_id: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    contents: tuple[str, ...]
    voxels: Mapping[int, int] | None
    darkest: float = 0.0
    outlined: tuple[int, ...] | None = None
    absent: tuple[int, ...] = ()

    def volume_ml(self, values: Sequence[int]) -> float:
        """Millilitres of all voxels with these label values."""
        return math.prod(self.spacing_mm) * sum((self.voxels or {}).get(value, 0) for value in values) / 1000.0


def content_notes(facts: Sequence[CaseFacts], classes: Classes | None = None, modality: str = "") -> list[str]:
    """A sentence for each thing that is allowed and rarely meant, of the cases of one owner.

    Args:
        facts: of the cases that could be read.
        classes: whose volumes are compared, in the order in which `outlined` and `absent` number them; None: every value found is
            a class, and a label is empty where it has none.
        modality: that the source is told to have; "": it has no such setting.
    """
    labelled = [case for case in facts if case.voxels is not None]
    found = _values_found(labelled)
    return [
        *_modality_notes(facts, modality),
        *_empty_notes(
            labelled, {EVERY_CLASS: tuple(value for own in found.values() for value in own)} if classes is None else classes
        ),
        *(note for name, values in (classes or found).items() for note in _volume_notes(labelled, name, values)),
    ]


def _values_found(labelled: Sequence[CaseFacts]) -> dict[str, tuple[int, ...]]:
    values = sorted({value for case in labelled for value in case.voxels or () if value != 0})
    return {f"value {value}": (value,) for value in values}


def looks_like_ct(facts: Sequence[CaseFacts]) -> bool:
    """Whether most images have voxels as dark as only air in CT is."""
    return 2 * sum(case.darkest < CT_AIR_HU for case in facts) > len(facts)


def _modality_notes(facts: Sequence[CaseFacts], modality: str) -> Iterator[str]:
    if modality == "mr" and looks_like_ct(facts):
        got = min(case.darkest for case in facts)
        yield f"{facts[0].owner}: images look like CT (voxels down to {got:.0f}), which needs modality: ct and else is read as mr"


def _empty_notes(labelled: Sequence[CaseFacts], classes: Classes) -> Iterator[str]:
    """One sentence for the classes that some labels lack, though their annotators were to look for them."""
    told, never = list[str](), list[str]()
    for number, (name, values) in enumerate(classes.items(), start=1):
        expected = [case for case in labelled if (case.outlined is None or number in case.outlined) and number not in case.absent]
        empty = [case for case in expected if not any((case.voxels or {}).get(value) for value in values)]
        told += [f"{name} in {len(empty)} of {len(expected)} ({_named(empty)})"] if empty else []
        never += [name] if empty and len(empty) == len(expected) and name != EVERY_CLASS else []
    if told:
        nowhere = f"; for what no case has, write [] in label_values ({_listed(never)})" if never else ""
        yield f"{labelled[0].owner}: some labels have no voxel of a class: {_listed(told)}; {SAY_SO}{nowhere}"


def _volume_notes(labelled: Sequence[CaseFacts], name: str, values: Sequence[int]) -> Iterator[str]:
    """One sentence for the cases whose volume of a class is unlike the others': by the median and the median absolute deviation of
    log volumes, the latter scaled to the standard deviation of a normal distribution (Leys et al., J Exp Soc Psychol 49:764, 2013).
    """
    volumes_ml = [(case, case.volume_ml(values)) for case in labelled if case.volume_ml(values) > 0]
    if len(volumes_ml) < MIN_CASES:
        return
    num_voxels = statistics.median(sum((case.voxels or {}).get(value, 0) for value in values) for case, _ in volumes_ml)
    logs = [math.log(volume_ml) for _, volume_ml in volumes_ml]
    centre = statistics.median(logs)
    spread = 1.4826 * statistics.median(abs(log - centre) for log in logs)
    limit = max(math.log(OUTLIER_FACTOR), OUTLIER_SPREADS * spread)
    unlike = [found for found, log in zip(volumes_ml, logs, strict=True) if abs(log - centre) > limit]
    if unlike and num_voxels >= MIN_VOXELS:
        got = _listed([f"{_millilitres(volume_ml)} in {case.case_id}" for case, volume_ml in unlike])
        rule = f"{name} should be about as large as in other cases (median {math.exp(centre):,.3g} mL of {len(volumes_ml)})"
        yield f"{unlike[0][0].owner}: {rule}, got {got}; look at {'it' if len(unlike) == 1 else 'them'}"


def _millilitres(volume_ml: float) -> str:
    return f"{volume_ml:,.3g} mL" if volume_ml < 100 else f"{volume_ml:,.0f} mL"


def _named(cases: Sequence[CaseFacts]) -> str:
    return _listed([case.case_id for case in cases])


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:MAX_NAMED]) + (f" and {len(words) - MAX_NAMED} more" if len(words) > MAX_NAMED else "")
