"""The checksums of a run directory, by which every file in it can be judged whatever the moment at which the run ended.

`checksums.sha256` has lines as `sha256sum -c` reads them. While a run goes on it is a journal: a line is added and flushed before
its file is put in place, and the last line of a path counts, or the one before where the run died in between. When the run has
ended the journal is sealed: written anew, one line a file, `run.log` among them, with a last line that is the checksum of those
above.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raykd.failpoints import failpoint
from raykd.results.durable import append_line, sweep, write_atomically
from raykd.scenario.errors import RaykdError

NAME = "checksums.sha256"
LOG, LOCK, MANIFEST, CHECKPOINTS = "run.log", "run.lock", "manifest.json", "checkpoints/"
OWN_FOLDERS = ("tables/", "models/", CHECKPOINTS)
MADE_LATER = ("report.html", "report.md", "report.pdf", "export/")
"""What `raykd report` and `raykd export` put into a run directory: made of the run, whenever somebody asks, and no part of it."""
"""Where every file is taken for the run's own, and so must be known."""
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_SEAL = "# sha256 of the lines above: "


@dataclass(frozen=True)
class Finding:
    """A file that is not what the run wrote.

    Attributes:
        path: relative to the run directory.
        state: `damaged`, `missing`, `unexpected` in a folder of the run's own, or `foreign`: beside the run, and no harm.
    """

    path: str
    state: str


class Checksums:
    """The checksums of one run, by its writer.

    Args:
        run_dir: an existing directory.
    """

    def __init__(self, run_dir: Path):
        self._run_dir = run_dir

    def write(self, path: Path, content: bytes) -> None:
        """Note the checksum of a file, then put the file there wholly or not at all."""
        self.note(path, hashlib.sha256(content).hexdigest())
        write_atomically(path, content)

    def note(self, path: Path, sha256: str) -> None:
        """Note the checksum of a file."""
        failpoint("checksums.before_note")
        append_line(self._run_dir / NAME, _line(sha256, path.relative_to(self._run_dir).as_posix()))
        failpoint("checksums.after_note")

    def take_up(self) -> list[str]:
        """Clears up what a run that died left behind; what is damaged among its checkpoints goes, and is named.

        Raises:
            RaykdError: another file is damaged.
        """
        sweep(self._run_dir)
        refuse_damage(self._run_dir)
        lost = [finding.path for finding in findings(self._run_dir) if finding.path.startswith(CHECKPOINTS)]
        for path in lost:
            (self._run_dir / path).unlink(missing_ok=True)
            for index in _indices_naming(self._run_dir, path):
                index.unlink()
        there = {path: sha256 for path, sha256 in self._present() if path != LOG and (self._run_dir / path).is_file()}
        self._rewrite(there, is_sealed=False)
        failpoint("resume.after_sweep")
        return lost

    def seal(self) -> None:
        """Writes the checksums of a run that has ended."""
        failpoint("checksums.before_seal")
        log = self._run_dir / LOG
        self._rewrite(dict(self._present()) | ({LOG: _digest(log)} if log.is_file() else {}), is_sealed=True)

    def _present(self) -> Iterator[tuple[str, str]]:
        """Paths that should be there and their checksums: damage stays known as what it should have been."""
        journal = Journal.read(self._run_dir / NAME)
        for path, known in journal.entries.items():
            found = _digest(self._run_dir / path) if (self._run_dir / path).is_file() else None
            if found in known[-2:]:
                yield path, found or ""
            elif found is not None or not journal.may_lack(self._run_dir, path):
                yield path, known[-1]

    def _rewrite(self, entries: dict[str, str], *, is_sealed: bool) -> None:
        text = "".join(f"{_line(sha256, path)}\n" for path, sha256 in sorted(entries.items()))
        seal = f"{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n" if is_sealed else ""
        write_atomically(self._run_dir / NAME, (text + seal).encode())


@dataclass(frozen=True)
class Journal:
    """What `checksums.sha256` says.

    Attributes:
        entries: by path, its checksums in the order in which they were noted.
        is_sealed: whether the run had ended.
        pending: paths noted last, whose files may never have been put in place.
        is_sound: False where a line is not one, or the seal is not that of the lines above.
    """

    entries: dict[str, list[str]]
    is_sealed: bool
    pending: frozenset[str]
    is_sound: bool

    @classmethod
    def read(cls, file: Path) -> Journal:
        """The journal in a file; one without entries where there is no such file."""
        return cls.parsed(file.read_bytes().decode(errors="replace") if file.is_file() else "")

    @classmethod
    def parsed(cls, text: str) -> Journal:
        """The journal that a text is."""
        body, mark, seal = text.partition(_SEAL)
        whole = body[: body.rfind("\n") + 1]  # a line that was cut off was never acted upon
        matches = [_LINE.fullmatch(line) for line in whole.split("\n") if line]
        entries: dict[str, list[str]] = {}
        for match in filter(None, matches):
            entries.setdefault(match[2], []).append(match[1])
        is_whole = seal == hashlib.sha256(body.encode()).hexdigest() + "\n" if mark else LOG not in entries
        is_sound = None not in matches and is_whole
        order = [match[2] for match in matches if match]
        while len(order) > 1 and order[-1] == MANIFEST:
            order.pop()
        return cls(entries, bool(mark), frozenset([*order[-1:], MANIFEST]) if not mark else frozenset(), is_sound)

    def may_lack(self, run_dir: Path, path: str) -> bool:
        """Whether a file that was noted need not be there: never put in place, or a checkpoint that later ones replaced."""
        if self.is_sealed:
            return False
        if path in self.pending and len(self.entries[path]) == 1:
            return True
        if not path.startswith(CHECKPOINTS):
            return False
        indices = [p for p in self.entries if p.startswith(CHECKPOINTS) and p.endswith(".json")]
        is_newest = path in indices and path == max(indices)
        return not is_newest and not any(True for _ in _indices_naming(run_dir, path))


def findings(run_dir: Path) -> list[Finding]:
    """Every file of a run directory that is not as the run wrote it, by path.

    Raises:
        RaykdError: it is no run directory.
    """
    if not (run_dir / NAME).is_file():
        if not (run_dir / MANIFEST).is_file():
            raise RaykdError(f"{run_dir}: must be the directory of a run, got one without {MANIFEST} and {NAME}")
        return [Finding(NAME, "missing")]
    journal, found = Journal.read(run_dir / NAME), []
    if not journal.is_sound:
        found.append(Finding(NAME, "damaged"))
    for path, known in journal.entries.items():
        file = run_dir / path
        if not file.is_file():
            found += [] if journal.may_lack(run_dir, path) else [Finding(path, "missing")]
        elif _digest(file) not in (known[-1:] if journal.is_sealed else known[-2:]):
            found.append(Finding(path, "damaged"))
    for path in sorted(p.relative_to(run_dir).as_posix() for p in run_dir.rglob("*") if p.is_file()):
        is_own = path.startswith(OWN_FOLDERS) and not Path(path).name.startswith(".")
        if not journal.is_sealed and path.startswith(CHECKPOINTS) and path.endswith(".pack"):
            continue  # of the round in hand, noted when it is whole
        if path in MADE_LATER or path.startswith(tuple(name for name in MADE_LATER if name.endswith("/"))):
            continue
        if path not in journal.entries and path not in (NAME, LOCK, *(() if journal.is_sealed else (LOG,))):
            found.append(Finding(path, "unexpected" if is_own else "foreign"))
    if MANIFEST not in journal.entries:
        found.append(Finding(MANIFEST, "missing"))
    return sorted(found, key=lambda finding: finding.path)


def refuse_damage(run_dir: Path) -> None:
    """Raises `RaykdError` for damage from which a run cannot go on; a damaged checkpoint gives way to the one before."""
    wrong = [f for f in findings(run_dir) if f.state != "foreign" and f.path != LOG and not f.path.startswith(CHECKPOINTS)]
    if wrong:
        told = ", ".join(f"{finding.path} is {finding.state}" for finding in wrong)
        raise RaykdError(f"{run_dir}: files must be as the run wrote them, but {told}; see `raykd verify {run_dir}`")


def _line(sha256: str, path: str) -> str:
    return f"{sha256}  {path}"


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _indices_naming(run_dir: Path, path: str) -> Iterator[Path]:
    """The indices of checkpoints that name a file."""
    name = Path(path).name
    return (file for file in (run_dir / CHECKPOINTS).glob("*.json") if f'"{name}"' in file.read_text(errors="replace"))
