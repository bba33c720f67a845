"""How the files of a directory are named: which patterns they follow, which of these are images and which their labels.

A pattern names the files of one kind. Its first `*` stands for the name of a case, and every further one for the same name again.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from raykd.data.sources._patterns import visible
from raykd.data.volume_io import READABLE, read_volume
from raykd.scenario.errors import DataError

LABEL_WORD = re.compile(
    r"(^|[^a-z])([a-z]{0,6}segs?|segmentations?|msks?|labs?|labels?|label(map|tr|ts|str|sts)s?|[a-z]{0,6}masks?|lbls?|gt|ground_?truths?|"
    r"annot(ation)?s?|contours?|rois?)($|[^a-z])",
    re.I,
)
IMAGE_WORD = re.compile(
    r"(^|[^a-z0-9])(t1|t1w|t1n|t1c|t1ce|t1gd|t2|t2w|t2f|t2star|t2starw|flair|pdw?|dwi|adc|swi|bold|cbct|cta?|mri?|pet|suv|us|ultrasound|"
    r"im|imgs?|images?|images(tr|ts)|scans?|vol|volumes?)(?=$|[^a-z])",
    re.I,
)
FIRST_CHOICE = re.compile(r"(^|[^a-z0-9])(t1w?|ct)($|[^a-z0-9])", re.I)
"""The kind that is taken where several fit alike."""
MAX_PATTERNS = 40
"""Of which pairs are formed: those with most files."""
MAX_OTHERS = 4
"""Patterns that are told beside those chosen."""
MAX_LOOKS = 20
"""Files whose voxels are looked at to tell labels from images."""
MAX_LABEL_VALUES, MIN_FLATNESS = 300, 0.6
"""A label map has at most so many values, and so many of its neighbouring foreground voxels share one: images have under 0.4."""


Rank = tuple[bool, int, tuple[int, ...]]


@dataclass(frozen=True)
class Kind:
    """The files that follow one pattern.

    Attributes:
        pattern: from the directory, with `/` between folders.
        files: by the name of the case.
        word: what in the pattern says what the files show: words of the field, an ending that several files share; "": nothing.
    """

    pattern: str
    files: Mapping[str, Path]
    word: str

    @property
    def paths(self) -> frozenset[Path]:
        """The files."""
        return frozenset(self.files.values())


@dataclass(frozen=True)
class Naming:
    """What was made of the names.

    Attributes:
        images, labels: the patterns chosen; None: there is none.
        others: further patterns with their numbers of files, those with most files first.
        num_left: files that none of them names.
    """

    images: str | None
    labels: str | None = None
    others: tuple[tuple[str, int], ...] = ()
    num_left: int = 0


def naming_of(folder: Path, items: Iterable[Path], labels: Iterable[Path] | None = None) -> Naming:
    """The patterns that files, or folders of series, follow.

    Args:
        folder: patterns begin here.
        items: what may be images.
        labels: what may be labels; None: the items are told apart, by words in their names, else by their voxels.
    """
    kinds = _kinds(folder, items)
    maps = _label_kinds(kinds) if labels is None else [kind for kind in _kinds(folder, labels) if _is_named_label(kind)]
    patterns = {kind.pattern for kind in maps}
    images = [kind for kind in kinds if kind.pattern not in patterns and not (labels and _is_named_label(kind))] or kinds
    pair = max(product(_by_count(images), _by_count(maps)), key=lambda pair: _fit(*pair), default=None)
    if pair is not None and _fit(*pair)[0][0] > 0:
        return Naming(pair[0].pattern, pair[1].pattern, *_others([*kinds, *maps], pair[0].paths | pair[1].paths))
    chosen = max(_unmixed(images, kinds), key=_worth, default=None)
    return Naming(None) if chosen is None else Naming(chosen.pattern, None, *_others(kinds, chosen.paths))


def _label_kinds(kinds: Sequence[Kind]) -> list[Kind]:
    """Those that are called labels; where none is, or all are, those whose first file is a label map."""
    named = [kind for kind in kinds if _is_named_label(kind)]
    if named and len(named) < len(kinds):
        return named
    looked_at = _by_count(_unmixed(kinds, kinds))[:MAX_LOOKS]
    maps = {kind.pattern for kind in looked_at if _is_label_map(next(iter(kind.files.values())))}
    return [kind for kind in kinds if kind.pattern in maps]


def volumes_below(folder: Path, depth: int) -> list[Path]:
    """The volumes in a folder and in those below it, hidden ones left out."""
    return [path for level in range(depth) for path in visible(folder, "*/" * level + "*") if path.name.endswith(READABLE)]


def _kinds(folder: Path, items: Iterable[Path]) -> list[Kind]:
    """Every pattern that some item follows."""
    files: dict[str, dict[str, Path]] = defaultdict(dict)
    words = dict[str, str]()
    for item in items:
        for pattern, case_id, cut_off in _readings(item.relative_to(folder)):
            files[pattern].setdefault(case_id, item)
            words[pattern] = cut_off
    # What ends a single name is a part of it, unless it is a word of the field.
    is_likely = {pattern: len(files[pattern]) > 1 or _begins_with_word(cut_off) for pattern, cut_off in words.items() if cut_off}
    return [
        Kind(pattern, found, f"{_words(pattern)} {words[pattern]}".strip())
        for pattern, found in files.items()
        if is_likely.get(pattern, True)
    ]


def _words(text: str) -> str:
    """The words of the field in a text."""
    return " ".join(found[2].lower() for word in (IMAGE_WORD, LABEL_WORD) for found in word.finditer(text))


def _begins_with_word(text: str) -> bool:
    return bool(IMAGE_WORD.match(text) or LABEL_WORD.match(text))


def _readings(path: Path) -> Iterator[tuple[str, str, str]]:
    """Each way to see a case's name in a path: the pattern, the name, and what is cut off a file's or folder's name to get it."""
    ending = next((ending for ending in sorted(READABLE, key=len, reverse=True) if path.name.endswith(ending)), "")
    parts = [*path.parts[:-1], path.name.removesuffix(ending)]
    for index, part in enumerate(parts):
        above, below = parts[:index], parts[index + 1 :]
        for start, end in _cuts(part):
            case_id, cut_off, starred = part[start:end], part[:start] + part[end:], f"{part[:start]}*{part[end:]}"
            for rest in {"/".join(below), "/".join(below).replace(case_id, "*")}:
                yield "/".join([*above, starred, *([rest] if rest else [])]) + ending, case_id, cut_off


def _cuts(name: str) -> Iterator[tuple[int, int]]:
    """Where the case's name may begin and end in a name: it is all of it, goes before a word, or after a word of the field."""
    yield 0, len(name)
    yield from ((0, found.start()) for found in re.finditer(r"(?<=.)[_.\-](?=[A-Za-z])", name))
    first = re.match(r"[A-Za-z]+([_.\-](?=.)|(?=\d))", name)
    if first and _words(first[0]):
        yield first.end(), len(name)


def _is_named_label(kind: Kind) -> bool:
    return LABEL_WORD.search(kind.pattern) is not None


def _by_count(kinds: Iterable[Kind]) -> list[Kind]:
    return sorted(kinds, key=lambda kind: (-len(kind.files), kind.pattern))[:MAX_PATTERNS]


def _fit(images: Kind, labels: Kind) -> tuple[tuple[int, ...], Rank, Rank]:
    """How well labels go with images: cases that have both, the fewer have one alone the better; then by what names say."""
    label_paths = labels.paths
    cases = {case_id for case_id, path in images.files.items() if path not in label_paths}
    both = cases & labels.files.keys()
    is_extended = labels.pattern.startswith(images.pattern.partition(".nii")[0]) and images.word != ""
    numbers = (len(both), -len(cases ^ labels.files.keys()), -sum(map(len, both)), int(is_extended))
    return numbers, _preference(images), _preference(labels)


def _worth(kind: Kind) -> tuple[int, int, Rank]:
    return len(kind.files), -sum(map(len, kind.files)), _preference(kind)


def _preference(kind: Kind) -> Rank:
    """Among patterns that fit alike the usual first, then the shorter, then the first in the alphabet."""
    return bool(FIRST_CHOICE.search(kind.pattern)), -len(kind.pattern), tuple(-ord(letter) for letter in kind.pattern)


def _unmixed(candidates: Iterable[Kind], kinds: Iterable[Kind]) -> list[Kind]:
    """The candidates that do not mix several images of one case: those whose files have names of their own in every kind."""
    words: dict[Path, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for kind in kinds:
        if kind.word:
            for case_id, path in kind.files.items():
                words[path][case_id].add(kind.word)
    chosen = list(candidates)
    return [kind for kind in chosen if not _is_mixed(kind, words)] or chosen


def _is_mixed(kind: Kind, words: Mapping[Path, Mapping[str, set[str]]]) -> bool:
    """Whether half of the files or more share the name of a case with one of other words.

    Args:
        kind: looked at.
        words: of every file, by the names of cases that are seen in it.
    """
    seen: dict[str, set[frozenset[str]]] = defaultdict(set)
    for path in kind.files.values():
        for case_id, own in words[path].items():
            seen[case_id].add(frozenset(own))
    sharing = sum(any(len(seen[case_id]) > 1 for case_id in words[path]) for path in kind.files.values())
    return 2 * sharing >= max(len(kind.files), 2)


def _others(kinds: Sequence[Kind], taken: frozenset[Path]) -> tuple[tuple[tuple[str, int], ...], int]:
    """Patterns of what is left, each of files that no pattern before it has, and the number of files beyond these."""
    left, found = _unmixed(kinds, kinds), list[tuple[str, int]]()
    while len(found) < MAX_OTHERS:
        left = [kind for kind in left if kind.paths.isdisjoint(taken)]
        best = max(left, key=_worth, default=None)
        if best is None:
            break
        found.append((best.pattern, len(best.files)))
        taken |= best.paths
    return tuple(found), len(frozenset().union(*(kind.paths for kind in kinds)) - taken)


def _is_label_map(path: Path) -> bool:
    """Whether a file's voxels are few whole numbers in patches, as labels are."""
    try:
        values_IJK = read_volume(path, "", "label")[0]
    except DataError:
        return False
    if values_IJK.min() < 0 or len(np.unique(values_IJK)) > MAX_LABEL_VALUES:
        return False
    here, there = values_IJK[:-1], values_IJK[1:]
    is_inside = (here > 0) & (there > 0)
    return bool(is_inside.any()) and float((here == there)[is_inside].mean()) >= MIN_FLATNESS
