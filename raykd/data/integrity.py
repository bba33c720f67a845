"""Whether a file is whole: every byte is read once, through sha256 and against the checksum of its own compression."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO

CHUNK_BYTES = 1 << 16
MAX_HEADER_BYTES = 1 << 16
AUTO_DETECT_WBITS = 47
"""Tells zlib to accept a gzip or a zlib stream, whichever it meets."""


class DamagedFile(Exception):
    """A file does not hold what it promises: the rule, what was got, what to do."""

    def __init__(self, rule: str, got: str = "", hint: str = "copy or convert the file again"):
        super().__init__(rule)
        self.rule, self.got, self.hint = rule, got, hint


@dataclass(frozen=True)
class FileDigest:
    """What was learnt by reading all bytes of a file once.

    Attributes:
        num_bytes: size of the file.
        sha256: of its bytes as they lie on disk, in hexadecimal.
        num_payload_bytes: what they come to after decompression; without the header for NRRD and MetaImage, else with it.
    """

    num_bytes: int
    sha256: str
    num_payload_bytes: int


def digest(path: Path) -> FileDigest:
    """Size, sha256 and decompressed size; read once a process as long as the file's size and time stay the same.

    Raises:
        DamagedFile: it is missing, fails its checksum, or keeps its voxels elsewhere.
    """
    try:
        detached = detached_voxels(path)
        status = [part.stat() for part in (path, detached) if part is not None]
        return _digest_once(path, detached, tuple((part.st_size, part.st_mtime_ns) for part in status))
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedFile("every byte must pass the checksum of the compressed file", str(error)) from None


def detached_voxels(path: Path) -> Path | None:
    """The file beside an .mhd header that holds its voxels; None for every other format, which holds them itself.

    Raises:
        DamagedFile: the header names no single file in its own folder.
    """
    if not path.name.lower().endswith(".mhd"):
        return None
    with path.open("rb") as file:
        name = _meta_fields(file)[0].get("elementdatafile", "")
    if not name or Path(name).name != name or name.lower() in ("local", "list"):
        raise DamagedFile("an .mhd file must name one file of voxels beside it", f"ElementDataFile {name!r}", "save it as .mha")
    return path.with_name(name)


@lru_cache(maxsize=8192)
def _digest_once(path: Path, detached: Path | None, status: tuple[tuple[int, int], ...]) -> FileDigest:
    sha256 = hashlib.sha256()
    with path.open("rb") as file, (detached or path).open("rb") as voxels:
        start, is_compressed = _payload(path, file)
        file.seek(0)
        sha256.update(file.read(None if detached else start))
        if not detached:
            voxels.seek(start)
        chunks = _chunks(voxels, sha256)
        num_payload = _num_inflated(chunks) if is_compressed else sum(len(chunk) for chunk in chunks)
    return FileDigest(sum(size for size, _ in status), sha256.hexdigest(), num_payload)


def _payload(path: Path, file: IO[bytes]) -> tuple[int, bool]:
    """Where the voxels of a file start, and whether they are compressed."""
    if not path.name.lower().endswith((".nrrd", ".mha", ".mhd")):
        return 0, path.name.lower().endswith(".gz")
    is_nrrd = path.name.lower().endswith(".nrrd")
    fields, start = _meta_fields(file, is_nrrd)
    if path.name.lower().endswith(".mhd"):
        return start, fields.get("compresseddata", "").lower() == "true"
    return _nrrd_payload(fields, start) if is_nrrd else _mha_payload(fields, start)


def header_fields(path: Path) -> dict[str, str]:
    """The fields of an NRRD or MetaImage header by lower-case key. Raises `DamagedFile` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return _meta_fields(file, path.name.endswith(".nrrd"))[0]
    except OSError as error:
        raise DamagedFile("the file must be readable", str(error)) from None


def _meta_fields(file: IO[bytes], is_nrrd: bool = False) -> tuple[dict[str, str], int]:
    """The fields of a text header by lower-case key, and where the header ends."""
    fields: dict[str, str] = {}
    header = BytesIO(file.read(MAX_HEADER_BYTES))
    for line in iter(header.readline, b""):
        text = line.decode("latin-1").strip()
        if is_nrrd and not text:
            break
        key, _, value = text.partition(":" if is_nrrd else "=")
        fields[key.strip().lower()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    return fields, header.tell()


def _nrrd_payload(fields: dict[str, str], start: int) -> tuple[int, bool]:
    encoding = fields.get("encoding", "").lower()
    if {"data file", "datafile"} & set(fields) or encoding not in ("raw", "gzip", "gz"):
        raise DamagedFile(
            "an NRRD file must hold its voxels itself, as raw or gzip", f"encoding {encoding!r}", "save it attached, as gzip"
        )
    return start, encoding != "raw"


def _mha_payload(fields: dict[str, str], start: int) -> tuple[int, bool]:
    if fields.get("elementdatafile", "").lower() != "local":
        raise DamagedFile(
            "an MHA file must hold its voxels itself", f"ElementDataFile {fields.get('elementdatafile')!r}", "save it as .mha"
        )
    return start, fields.get("compresseddata", "").lower() == "true"


def _chunks(file: IO[bytes], sha256: hashlib._Hash) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        sha256.update(chunk)
        yield chunk


def _num_inflated(chunks: Iterable[bytes]) -> int:
    """Decompressed size of a gzip or zlib stream; zlib compares checksum and length at the end of every member."""
    engine, total = zlib.decompressobj(wbits=AUTO_DETECT_WBITS), 0
    for chunk in chunks:
        rest = chunk
        while rest:
            if engine.eof:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                engine = zlib.decompressobj(wbits=AUTO_DETECT_WBITS)
            total += len(engine.decompress(rest))
            rest = engine.unused_data
    if not engine.eof:
        raise EOFError("the compressed stream ends before its checksum")
    return total
