"""What groups, sites and classes are called: in any script, as tables and reports show it. File names are derived from it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

MAX_LENGTH = 64
"""Characters of a label."""
RULE = (
    "must be 1 to 64 characters of any script, begin with a letter, a digit or an emoji, and hold no '/', no '\\' "
    "and no character that cannot be seen but single spaces between words"
)
_JOINERS = "\u200c\u200d"
"""Cannot be seen, and belong to the spelling of Persian, of Indian scripts and of emoji."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_MAX_SLUG = 40


def normal(label: str) -> str:
    """The one spelling of a label: characters composed (Unicode NFC), so that what looks the same is the same."""
    return unicodedata.normalize("NFC", label)


def is_label(label: str) -> bool:
    """Whether something may be called so."""
    words = label.split(" ")
    begins = label[:1] and (unicodedata.category(label[0])[0] in "LN" or unicodedata.category(label[0]) == "So")
    return bool(begins) and len(label) <= MAX_LENGTH and all(words) and all(map(_is_seen, label))


def _is_seen(character: str) -> bool:
    is_hidden = unicodedata.category(character)[0] in "CZ"
    return character not in "/\\" and (not is_hidden or character == " " or character in _JOINERS)


def _checked(label: str) -> str:
    label = normal(label)
    if not is_label(label):
        raise PydanticCustomError("label", RULE)
    return label


Composed = Annotated[str, AfterValidator(normal)]
"""A text in the one spelling of a label, for what refers to one."""
Label = Annotated[str, AfterValidator(_checked), Field(json_schema_extra={"minLength": 1, "maxLength": MAX_LENGTH})]
"""A name that is shown: in any script, with spaces."""


def file_id(label: str) -> str:
    """What a file about something of this label is called: safe in every file system, and never the same for two labels.

    Letters, digits, '.', '_' and '-' stay as they are, so that plain labels are their own ids.
    """
    if _PLAIN.fullmatch(label):
        return label
    ascii_only = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", ascii_only)[:_MAX_SLUG].strip("-")
    return "-".join(part for part in (slug, hashlib.sha256(normal(label).encode()).hexdigest()[:8]) if part)
