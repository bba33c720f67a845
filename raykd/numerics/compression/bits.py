"""Whole numbers in as few bits as they need: fixed widths, and the gaps between ascending indices in Golomb-Rice codes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


def num_bytes(num_bits: int) -> int:
    """Bytes that hold so many bits."""
    return -(-num_bits // 8)


def pack_bits(values: Integers, width: int) -> Bytes:
    """Numbers of `width` bits each, most significant bit first, one after the other, the last byte filled with zeros.

    Raises:
        ValueError: a number is negative or needs more bits.
    """
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < 2**width:
        raise ValueError(f"values must be from 0 to {2**width - 1}, got {values.min()} to {values.max()}")
    shifts = np.arange(width - 1, -1, -1)
    return np.packbits(((values[:, None] >> shifts) & 1).astype(np.uint8).reshape(-1))


def unpack_bits(packed: Bytes, width: int, count: int) -> Integers:
    """The first `count` numbers of `width` bits each."""
    bits = np.unpackbits(packed, count=count * width).reshape(count, width).astype(np.int64)
    return bits @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))


def rice_width(share: float) -> int:
    """The best number of low bits where each place is taken with probability `share`.

    b* = 1 + floor(log2(log(phi - 1) / log(1 - p))), phi the golden ratio. Sattler et al., IEEE TNNLS 2020, eq. 15.
    https://arxiv.org/abs/1903.02891
    """
    if share >= 1.0:
        return 0
    return max(0, 1 + math.floor(math.log2(math.log((math.sqrt(5) - 1) / 2) / math.log1p(-share))))


def rice_bound(count: int, size: int, width: int) -> int:
    """The most bytes that `count` indices below `size` can take: the quotients of their gaps sum to at most size / 2^width."""
    return num_bytes(count * width) + num_bytes(count + (size - count) // 2**width)


def rice_encode(indices: Integers, size: int, width: int) -> Bytes:
    """Ascending indices below `size` as Golomb-Rice codes of the gaps between them, filled up to `rice_bound` with zeros.

    A gap is coded as its low `width` bits, and its quotient by 2^width as so many ones and a zero; all low bits come first. The
    length follows from the number of indices alone: a link's traffic is known beforehand, and tells nothing of the contents.

    Raises:
        ValueError: indices do not ascend, or are not below `size`.
    """
    gaps = np.diff(indices, prepend=-1) - 1
    if len(indices) and (int(gaps.min()) < 0 or int(indices[-1]) >= size):
        raise ValueError(f"indices must ascend from 0 to {size - 1}")
    quotients = gaps >> width
    ends = np.cumsum(quotients + 1)
    unary = np.ones(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    unary[ends - 1] = 0
    coded = np.concatenate([pack_bits(gaps & ((1 << width) - 1), width) if width else _NOTHING, np.packbits(unary)])
    return np.concatenate([coded, np.zeros(rice_bound(len(indices), size, width) - len(coded), dtype=np.uint8)])


def rice_decode(coded: Bytes, count: int, width: int) -> Integers:
    """The indices again."""
    num_low = num_bytes(count * width)
    low = unpack_bits(coded[:num_low], width, count) if width else np.zeros(count, dtype=np.int64)
    (zeros,) = np.nonzero(np.unpackbits(coded[num_low:]) == 0)
    quotients = np.diff(zeros[:count], prepend=-1) - 1
    return np.cumsum((quotients << width) + low + 1) - 1


_NOTHING = np.zeros(0, dtype=np.uint8)
