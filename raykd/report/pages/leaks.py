"""What leaks: what attacks got out of uploads, and what differential privacy has cost."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from raykd.report.blocks import Block, Text
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.report.wording import number, plural, readable
from raykd.results.questions import leaks_found, privacy_spent

KEY = "leaks"
TITLE = "What leaks"
NEEDS = "attacks on what was uploaded, made by raykd leaks RUN_DIR, or a scenario with privacy"
FEATURES = {"features", "prototypes"}
FEW = 12
ATTACKS = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("Seed", "seed", "count"),
    Column("Site", "client_name"),
    Column("Attack", "attack", "class"),
    Column("It holds", "knows"),
    Column("Measured as", "metric", "class"),
    Column("It reached", "value", "number"),
    Column("without the upload", "blind", "number"),
    Column("against unused scans", "unseen", "number"),
    Column("It says", "verdict"),
)
NEIGHBOURS = {"add_or_remove": "there or not", "replace_one": "another"}
SPENT = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("Seed", "seed", "count"),
    Column("Site", "client_name"),
    Column("Noise is added to", "mechanism"),
    Column("It hides", "unit"),
    Column("Epsilon", "spent"),
    Column("for runs in which the hidden one is", "between"),
    Column("there or not", "there"),
    Column("another", "another"),
    Column("Delta", "odds"),
    Column("Noise multiplier", "noise_multiplier", "number"),
    Column("Clipped at", "clip_norm", "number"),
    Column("Releases", "num_releases", "count"),
)


def page(material: Material) -> list[Block]:
    """What to beware of, the attacks, and epsilon by site."""
    attacks, spent = leaks_found(material.comparison), privacy_spent(material.comparison)
    if attacks.empty and spent.empty:
        return []
    blocks: list[Block] = [Text(words) for words in _sentences(material, attacks, spent)]
    if len(attacks):
        told = attacks.rename(columns={"low": "value_low", "high": "value_high"})
        blocks.append(_folded(material, "Attacks on the uploads, with 95% intervals", told, ATTACKS))
    if len(spent):
        noised = spent.assign(
            spent=[_epsilon(value) for value in spent["epsilon"]],
            between=spent["neighbours"].map(NEIGHBOURS),
            there=[_epsilon(value) for value in spent["epsilon_add_or_remove"].fillna(spent["epsilon"])],
            another=[
                _epsilon(value, "unbounded" if pd.isna(epsilon) else "not reckoned")
                for value, epsilon in zip(spent["epsilon_replace_one"], spent["epsilon"], strict=True)
            ],
            odds=["" if pd.isna(delta) else f"{delta:.0e}" for delta in spent["delta"]],
        )
        blocks.append(_folded(material, "Privacy spent by the end of each run", noised, SPENT))
    return blocks


def _epsilon(value: float, absent: str = "unbounded") -> str:
    return absent if pd.isna(value) else number(value, 1)


def _folded(material: Material, caption: str, frame: pd.DataFrame, columns: tuple[Column, ...]) -> Block:
    summary = f"The numbers: {plural(len(frame), 'row')}" if len(frame) > FEW else ""
    return table(material, caption, frame, columns, summary=summary)


def _sentences(material: Material, attacks: pd.DataFrame, spent: pd.DataFrame) -> Iterator[str]:
    if sent := sorted(FEATURES & set(material.kinds)):
        yield f"Beware: {' and '.join(sent)} travelled, and they tell the shape of what a site holds, attacked or not."
    if len(attacks):
        counts = attacks["verdict"].value_counts()
        few = f", and {counts['too few cases']} had too few scans to say" if "too few cases" in counts else ""
        yield (
            f"Of {plural(len(attacks), 'attack')} on the uploads of the last round, {counts.get('leaks', 0)} got beyond what is "
            f"known without the upload{few}. Nothing found is no proof: these are baselines without side information. "
            "Intervals are over the cases of one training and are not adjusted for the number of attacks: of many that find "
            "nothing, one in forty is told to leak by chance."
        )
        found = attacks[attacks["warning"] != ""]
        for (method, attack, warning), rows in found.groupby(["method", "attack", "warning"], observed=True):
            sites = ", ".join(sorted(set(rows["client_name"])))
            yield f"{method}, {readable(str(attack))}: {warning} ({sites})."
    else:
        yield "No attack was made on what was uploaded; raykd leaks RUN_DIR makes some."
    if len(spent):
        worst = spent["epsilon"].max(skipna=False)
        words = "unbounded for some sites, whose uploads had no noise" if pd.isna(worst) else f"{number(worst, 1)} at most"
        yield f"Epsilon is {words}: the smaller, the less can be told of the client or patient that noise hides."
    else:
        yield "No run adds noise for privacy, so nothing bounds what uploads tell."
