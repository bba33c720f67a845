"""Named places at which a test makes the process die or a write fail; inert unless `$RAYKD_FAILPOINTS` is set.

`RAYKD_FAILPOINTS="write.before_rename=kill@3; round.after_aggregate=raise"`: what to do at the third (by default the first) passing
of a site. Actions: `kill` (SIGKILL to this process), `exit:CODE`, `raise` (the disk is full), `raise:EFBIG` (or another errno).
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections import Counter

from raykd.scenario.errors import RaykdError, did_you_mean

VARIABLE = "RAYKD_FAILPOINTS"
SITES = (
    "write.before_aside",
    "write.before_fsync",
    "write.before_rename",
    "write.after_rename",
    "checksums.before_note",
    "checksums.after_note",
    "checksums.before_seal",
    "begin.before_directory",
    "begin.after_directory",
    "begin.after_scenario",
    "begin.after_manifest",
    "resume.after_sweep",
    "table.before_part",
    "table.after_part",
    "checkpoint.before_index",
    "checkpoint.after_index",
    "start.after_training",
    "round.before_dispatch",
    "round.after_replies",
    "round.after_aggregate",
    "round.before_evaluation",
    "models.before_write",
    "models.after_write",
    "mirror.before_write",
    "status.before_done",
    "status.after_done",
)
_RULE = re.compile(r"(?P<site>[^=@]+)=(?P<action>kill|exit:\d{1,3}|raise(?::(?P<errno>E[A-Z0-9]+))?)(?:@(?P<number>[1-9]\d*))?")
_rules: dict[str, tuple[str, int]] | None = None
_passed: Counter[str] = Counter()


def arm(text: str) -> None:
    """Takes up rules in place of those before, and counts passings anew. Raises `RaykdError` for what is misspelt."""
    global _rules
    rules = {}
    for rule in filter(None, map(str.strip, text.split(";"))):
        match = _RULE.fullmatch(rule)
        if match is None or (match["errno"] and not hasattr(errno, match["errno"])):
            raise RaykdError(f"{VARIABLE}: must be SITE=kill|exit:CODE|raise[:ERRNO][@N], several parted by ';', got {rule!r}")
        if match["site"] not in SITES:
            raise RaykdError(f"{VARIABLE}: unknown site {match['site']!r}; {did_you_mean(match['site'], SITES)}")
        rules[match["site"]] = (match["action"], int(match["number"] or 1))
    _rules = rules
    _passed.clear()


def failpoint(site: str) -> None:
    """Passes a site: nothing happens, unless a rule is for this passing of it."""
    if _rules is None:
        arm(os.environ.get(VARIABLE, ""))
    if not _rules or site not in _rules:
        return
    _passed[site] += 1
    action, number = _rules[site]
    if _passed[site] != number:
        return
    verb, _, value = action.partition(":")
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "exit":
        os._exit(int(value))
    else:
        code = getattr(errno, value or "ENOSPC")
        raise OSError(code, os.strerror(code), f"failpoint {site}")
