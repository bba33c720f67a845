"""Commands about what raykd keeps on disk to compute nothing twice."""

from __future__ import annotations

import datetime
import json
import re
import time
from typing import Annotated, Any

import typer

from raykd.commands.options import AsJson
from raykd.commands.tables import aligned, bytes_text

app = typer.Typer(help="Shows or prunes what is kept so that nothing is computed or fetched twice.")

SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "B": 1}


@app.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Lists each kind with number, size, and when the least and most recently used of it was last used."""
    if context.invoked_subcommand is not None:
        return
    from raykd.data.cache import cache_dir, entries
    from raykd.data.remote import entries_of_stores

    kinds: dict[str, list[tuple[int, float]]] = {}
    for entry in entries() + entries_of_stores():
        kinds.setdefault(entry.kind if entry.is_whole else "unfinished", []).append((entry.num_bytes, entry.used_s))
    rows: list[dict[str, Any]] = [
        {"kind": kind, "number": len(found), "bytes": sum(size for size, _ in found), **_span([used for _, used in found])}
        for kind, found in sorted(kinds.items())
    ]
    if as_json:
        typer.echo(json.dumps({"directory": str(cache_dir()), "kinds": rows}, indent=2))
        return
    total = bytes_text(sum(row["bytes"] for row in rows))
    typer.echo(f"{cache_dir()}: {sum(row['number'] for row in rows)} entries, {total}")
    if rows:
        header = ["kind", "number", "size", "least recently used", "most recently used"]
        cells = [[r["kind"], str(r["number"]), bytes_text(r["bytes"]), r["oldest_use"], r["newest_use"]] for r in rows]
        typer.echo(aligned([header, *cells], left=(0,)))


def _span(used_s: list[float]) -> dict[str, str]:
    oldest, newest = (datetime.datetime.fromtimestamp(at).isoformat(" ", "minutes") for at in (min(used_s), max(used_s)))
    return {"oldest_use": oldest, "newest_use": newest}


@app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="SPAN", help="What was not used for so long: 30d, 12h, 2w, 45m.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="The least recently used, until the rest fits: 10GB, 500MB.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Of this kind alone, as `raykd cache` names them.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Says what would go, and removes nothing.")] = False,
) -> None:
    """Removes entries, and what dead processes left unfinished. Runs that are under way go on, and compute again what they miss; of
    what lies here of stores, a run that is not done is never removed."""
    from raykd.data.cache import abandoned, entries, remove, to_prune
    from raykd.data.remote import entries_of_stores
    from raykd.scenario.errors import RaykdError, did_you_mean

    if not all_ and older_than is None and max_size is None:
        raise RaykdError("say what to remove: --older-than 30d, --max-size 10GB, or --all")
    unused_s = None if older_than is None else parse_quantity(older_than, SECONDS, "--older-than", "30d")
    max_bytes = None if max_size is None else int(parse_quantity(max_size, BYTES, "--max-size", "10GB"))
    found, now_s = entries() + entries_of_stores(), time.time()
    known = {entry.kind for entry in found}
    if kind is not None and kind not in known and known:
        raise RaykdError(f"--kind must be one that the cache holds, got {kind!r}; {did_you_mean(kind, known)}")
    own = [entry for entry in found if kind in (None, entry.kind)]
    chosen = to_prune(own, now_s, unused_s=unused_s, max_bytes=0 if all_ else max_bytes) + abandoned(own, now_s)
    num_bytes = sum(entry.num_bytes for entry in chosen) if dry_run else remove(chosen)
    typer.echo(f"{'would remove' if dry_run else 'removed'} {len(chosen)} of {len(own)} entries, {bytes_text(num_bytes)}")


def parse_quantity(text: str, units: dict[str, float] | dict[str, int], option: str, example: str) -> float:
    """A number with a unit, as `30d`. Raises `RaykdError` for anything else."""
    from raykd.scenario.errors import RaykdError

    match = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*({'|'.join(units)})", text.strip())
    if match is None:
        known = ", ".join(units)
        raise RaykdError(f"{option} must be a number with a unit, one of {known}, got {text!r}; as in {option} {example}")
    return float(match[1]) * units[match[2]]
