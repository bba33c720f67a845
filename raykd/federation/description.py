"""What a site is, in the words and numbers of the tables: its data, scanner, annotators, network, line, and what was drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from raykd.data.case import Case
from raykd.data.federation import ClientData
from raykd.data.references import union
from raykd.federation.protocols import Row
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client, LabelNoise, Scanner

AS_IN_SOURCE = "as in its source"
"""The acquisition of images that nothing is said of."""


def client_row(scenario: Scenario, member: Client, data: ClientData) -> Row:
    """A site's row of the `clients` table, its network left out."""
    group, source = member.group, source_settings(scenario, member)
    names, outlined = scenario.classes, label_classes(scenario, member, data.labelled)
    return {
        "client_id": member.client_id,
        "client_name": member.name,
        "group": group.group,
        "source": describe_source(source),
        "split_unit": getattr(source, "unit", None),
        **{f"spacing_{axis}_mm": value for axis, value in zip("ijk", data.spacing_mm, strict=True)},
        "slice_gap_mm": group.slice_gap_mm,
        "scanner": describe_scanner(source, group.scanner),
        "label_classes": ", ".join(names if outlined is None else (names[index - 1] for index in outlined)),
        "label_slices": group.labels.slices,
        "label_noise": describe_noise(group.labels.noise),
        "is_held_out": member.held_out,
        "num_labelled": len(data.labelled),
        "num_unlabelled": len(data.unlabelled),
        "num_validation": len(data.validation),
        "num_test": len(data.test),
        "num_previews": min(scenario.evaluation.previews, len(data.test)),
        "link_up_mbps": group.link.up_mbps,
        "link_down_mbps": group.link.down_mbps,
        "link_latency_ms": group.link.latency_ms,
        "link_jitter_ms": group.link.jitter_ms,
        "link_loss": group.link.loss,
        "compute_factor": group.compute_factor,
        "memory_gib": group.memory_gib,
        "joins": group.availability.joins,
        "leaves": group.availability.leaves,
        "drawn": json.dumps(group.drawn) if group.drawn else None,
    }


def label_classes(scenario: Scenario, member: Client, labelled: Sequence[Case]) -> tuple[int, ...] | None:
    """The foreground classes that were outlined in one of a site's labelled cases or more; None: all of them in every case. Cases
    that do not say have those of the site's settings, and so has a site without a labelled case."""
    names = member.group.labels.classes or scenario.classes
    own = tuple(sorted(scenario.classes.index(name) + 1 for name in names)) if len(names) < len(scenario.classes) else None
    outlined = [own if case.outlined is None else case.outlined for case in labelled]
    return union(outlined, len(scenario.classes)) if outlined else own


def record_rows(client_id: int, held: Mapping[str, Sequence[Case]]) -> list[Row]:
    """Rows of the `records` table: what source and shifts drew for each case.

    Args:
        client_id: whose cases they are.
        held: its cases by split.
    """
    return [
        {
            "client_id": client_id,
            "split": split,
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            "name": name,
            "value": None if isinstance(value, str) else float(value),
            "words": value if isinstance(value, str) else None,
        }
        for split, cases in held.items()
        for case in cases
        for name, value in case.record.items()
    ]


def source_settings(scenario: Scenario, member: Client) -> Any:
    """The settings of the source that a site's cases are read or made by: its own, or that of the pool that it draws on."""
    source = member.group.source
    return scenario.pools[source.pool].source if source.name == "pool" else source


def describe_source(settings: Any) -> str:
    """A source in a few words: its name and, where it makes cases, of what."""
    return ", ".join(part for part in (settings.name, getattr(settings, "anatomy", None)) if part)


def describe_scanner(source: Any, scanner: Scanner) -> str:
    """A site's acquisition in a few words."""
    strengths = {
        "noise": scanner.noise,
        "bias": scanner.bias_field,
        "contrast": scanner.contrast,
        "blur mm": scanner.blur_mm,
        "motion": scanner.motion,
        "ghosting": scanner.ghosting,
        "spike": scanner.spike,
        "field T": scanner.field_strength_t,
    }
    parts = [
        *([str(source.protocol)] if getattr(source, "protocol", None) else []),
        *([scanner.profile] if scanner.profile else []),
        *(f"{name} {value:.3g}" for name, value in strengths.items() if value),
    ]
    if scanner.gamma != (1.0, 1.0):
        parts.append(f"gamma {scanner.gamma[0]:.3g} to {scanner.gamma[1]:.3g}")
    return ", ".join(parts) or AS_IN_SOURCE


def describe_noise(noise: LabelNoise) -> str | None:
    """How a site's annotators err, in a few words; None: not at all."""
    parts = []
    if noise.boundary_mm:
        parts.append(f"boundaries off by {noise.boundary_mm:.3g} mm")
    if noise.bias_mm:
        parts.append(f"{abs(noise.bias_mm):.3g} mm too {'wide' if noise.bias_mm > 0 else 'narrow'}")
    if noise.missing:
        parts.append(f"{100 * noise.missing:.3g}% of components overlooked")
    return ", ".join(parts) or None


def describe_network(settings: Any) -> str:
    """A network in a few words: its name and, where it has one, its width."""
    width = getattr(settings, "width", None)
    return settings.name if width is None else f"{settings.name} {width}"
