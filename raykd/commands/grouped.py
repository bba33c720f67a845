"""The help of `raykd`: its commands under headings, each with the first clause of its own help."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperGroup

MAX_WIDTH = 160
"""Columns of a help text, on terminals that have them."""
OTHERS = "Commands"


class Grouped(TyperGroup):
    """A group that shows its commands under the headings that they were registered with (`rich_help_panel`)."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        headings: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            heading = getattr(command, "rich_help_panel", None)
            headings.setdefault(heading if isinstance(heading, str) else OTHERS, []).append(
                (name, first_clause(command.help or ""))
            )
        width = max(len(name) for rows in headings.values() for name, _ in rows)
        for heading, rows in headings.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), clause) for name, clause in rows])


def first_clause(text: str) -> str:
    """What comes before the first colon, semicolon or full stop that ends a clause."""
    return re.split(r"[:;.](?:\s|$)", " ".join(text.split()), maxsplit=1)[0]
