"""Text of DICOM tags, decoded by the character set that the file declares.

DICOM PS3.5, section 6.1 and PS3.3, section C.12.1.1.2, https://dicom.nema.org/medical/dicom/current/output/html/part03.html
"""

from __future__ import annotations

import re

CHARACTER_SET = "0008|0005"
CODECS = {
    "6": "ascii",
    "13": "shift_jis",
    "58": "gb2312",
    "87": "iso2022_jp_ext",
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "149": "euc_kr",
    "159": "iso2022_jp_ext",
    "166": "tis_620",
    "192": "utf_8",
    "203": "iso8859_15",
    "GB18030": "gb18030",
    "GBK": "gbk",
}
"""Python's codec for each character set, by the end of its name: `100` of `ISO_IR 100` and of `ISO 2022 IR 100`."""
SHIFTS_TO_TWO_BYTES = (b"\x1b$)C", b"\x1b$)A")
"""Escape sequences before Korean and Chinese text, which Python's codecs do not know."""


def decoded(text: str, character_set: str) -> str:
    """A tag's text by the character set of its file; as it is where that is unknown or does not fit.

    Args:
        text: as SimpleITK gives it, in which bytes that are no UTF-8 are lone surrogates.
        character_set: the values of tag (0008,0005), separated by backslashes; of several the last counts.
    """
    declared = [name.strip() for name in character_set.split("\\") if name.strip()]
    match = re.search(r"(\d+|GB18030|GBK)$", declared[-1]) if declared else None
    codec = CODECS.get(match[1] if match else "6", "ascii")
    raw = text.encode("utf-8", "surrogateescape")
    for shift in SHIFTS_TO_TWO_BYTES:
        raw = raw.replace(shift, b"")
    try:
        return raw.decode(codec)
    except UnicodeDecodeError:
        return text
