"""The `dataset.json` that lies beside the volumes of the Medical Segmentation Decathlon and of nnU-Net."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raykd.data.sources._files import FileSettings
from raykd.data.sources._labels import LabelNames, normalised
from raykd.data.sources._patterns import PatientPattern
from raykd.scenario.errors import DataError, Problem, did_you_mean
from raykd.scenario.fields import NonNegativeInt

NAMES_FILE = "dataset.json"


class ChannelSettings(FileSettings):
    """What layouts with a dataset.json share."""

    channel: NonNegativeInt | str = 0
    """Which channel of a multi-channel image is read, by its number from 0 or by its name in dataset.json; networks take one."""
    patient_pattern: PatientPattern | None = None
    """Regular expression searched in the case's name, whose one group is the patient; absent: each case is a patient."""


def refused(folder: Path, rule: str, got: str = "", hint: str = "") -> DataError:
    """The refusal of a `dataset.json`."""
    return DataError(str(Problem(path="", rule=rule, got=got, file=str(folder / NAMES_FILE), hint=hint)))


def read_dataset_json(folder: Path) -> Mapping[str, Any]:
    """The content of `folder/dataset.json`. Raises `DataError` where there is none, or where it is no JSON object."""
    try:
        text = (folder / NAMES_FILE).read_text(encoding="utf-8-sig")
        content = json.loads(text, object_pairs_hook=functools.partial(_without_repeats, folder))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise refused(folder, "must be a readable JSON file", str(error), "set folder to where the data set was unpacked") from None
    if not isinstance(content, dict):
        raise refused(folder, "must be an object", type(content).__name__)
    return content


def _without_repeats(folder: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the file, in which JSON would let the last of two equal keys win."""
    twice = [key for key, num in Counter(key for key, _ in pairs).items() if num > 1]
    if twice:
        raise refused(folder, "an object must name each key once", ", ".join(map(repr, twice)))
    return dict(pairs)


def label_values(folder: Path, labels: Any) -> LabelNames:
    """The values of every label but background, from `{"1": "name"}` (Decathlon) or `{"name": 1, "region": [1, 2]}` (nnU-Net)."""
    if not isinstance(labels, dict):
        raise refused(folder, "labels must be an object", type(labels).__name__)
    found: dict[str, tuple[int, ...]] = {}
    names: dict[str, tuple[int, ...]] = {}
    for key, value in labels.items():
        name, numbers = (value, key) if isinstance(value, str) else (key, value)
        try:
            values = tuple(_whole(number) for number in (numbers if isinstance(numbers, list) else [numbers]))
        except (TypeError, ValueError):
            raise refused(folder, "a label must be an integer or a list of integers", f"{numbers!r} for {name!r}") from None
        if values == (0,):
            continue
        other = names.setdefault(normalised(name), values)
        if other != values:
            got, hint = f"{name!r} for {list(other)} and {list(values)}", "tell the names apart by more than case and blanks"
            raise refused(folder, "a label's name must be its own", got, hint)
        found[name] = values
    return found


def _whole(number: Any) -> int:
    """The integer that a number or its text is. Raises `TypeError` or `ValueError` where it is none."""
    if isinstance(number, bool) or (isinstance(number, float) and not number.is_integer()):
        raise ValueError
    return int(number)


def channel_index(folder: Path, names: Any, channel: int | str) -> int:
    """The number of a channel given by number or name; `names` is `{"0": "FLAIR", ...}`. Raises `DataError`."""
    names = names if isinstance(names, dict) else {}
    known = {normalised(str(name)): int(number) for number, name in names.items() if str(number).isdigit()}
    if isinstance(channel, str):
        if normalised(channel) not in known:
            raise refused(folder, "channel must be one of the file's", repr(channel), did_you_mean(normalised(channel), known))
        return known[normalised(channel)]
    if known and channel not in known.values():
        raise refused(folder, f"channel must be 0 to {max(known.values())}", str(channel), f"named {', '.join(known)}")
    return channel
