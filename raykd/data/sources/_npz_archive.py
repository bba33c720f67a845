"""Arrays of an `.npz` archive, read one volume at a time and never unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from raykd.data.integrity import DamagedFile
from raykd.data.volume_io import check_geometry
from raykd.scenario.errors import did_you_mean

MAX_SMALL_BYTES = 1 << 24
"""Largest array that says something of each case, as patients."""


def open_archive(path: Path) -> zipfile.ZipFile:
    """An archive to read from. Raises `DamagedFile` where it is none, or is cut short."""
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DamagedFile("the file must be a readable .npz archive", str(error)) from None


def check_archive(archive: zipfile.ZipFile) -> None:
    """Reads every byte. Raises `DamagedFile` where one fails the checksum of its array."""
    try:
        damaged = archive.testzip()
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        damaged = str(error)
    if damaged is not None:
        raise DamagedFile("every array must pass its checksum", damaged)


@contextmanager
def _opened(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[np.generic]]]:
    """The array's stream after its header, its shape and type; the header is held against the archive before any is believed."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        known = [entry.removesuffix(".npy") for entry in archive.namelist()]
        raise DamagedFile(f"the archive must have an array {name!r}", "none", did_you_mean(name, known)) from None
    with archive.open(info) as stream:
        try:
            version = npy.read_magic(stream)
            reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, is_fortran, dtype = reader(stream)
        except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DamagedFile(f"{name} must begin with the header of an array", str(error)) from None
        if dtype.hasobject or is_fortran:
            what = "Python objects" if dtype.hasobject else "Fortran order"
            raise DamagedFile(f"{name} must hold numbers or text in C order", what, "save it with numpy.ascontiguousarray")
        if min(shape, default=1) < 0 or info.file_size != stream.tell() + prod(shape) * dtype.itemsize:
            raise DamagedFile(f"{name} must be as long as its header says", f"shape {shape} of {dtype} in {info.file_size} bytes")
        yield stream, shape, dtype


def stack_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type of a stack of volumes, (cases, i, j, k). Raises `DamagedFile` where the array is none."""
    with _opened(archive, name) as (_, shape, dtype):
        pass
    if len(shape) != 4 or shape[0] == 0 or dtype.kind not in "buif":
        raise DamagedFile(f"{name} must be real numbers of shape (cases, i, j, k)", f"{dtype} of shape {shape}")
    check_geometry(shape[1:], (1.0, 1.0, 1.0))
    return shape, dtype


def read_one(archive: zipfile.ZipFile, name: str, index: int) -> NDArray[np.generic]:
    """One volume of a stack, (i, j, k); the others are never in memory. Raises `DamagedFile`."""
    shape, dtype = stack_header(archive, name)
    num_bytes = prod(shape[1:]) * dtype.itemsize
    with _opened(archive, name) as (stream, _, _):
        stream.seek(stream.tell() + index * num_bytes)
        return np.frombuffer(bytearray(stream.read(num_bytes)), dtype).reshape(shape[1:])


def read_small(archive: zipfile.ZipFile, name: str) -> NDArray[np.generic]:
    """A short array of numbers or text. Raises `DamagedFile` where it is none."""
    with _opened(archive, name) as (stream, shape, dtype):
        if prod(shape) * dtype.itemsize > MAX_SMALL_BYTES or dtype.kind not in "uifU":
            raise DamagedFile(f"{name} must be a short array of numbers or text", f"{dtype} of shape {shape}")
        return np.frombuffer(stream.read(), dtype).reshape(shape)
