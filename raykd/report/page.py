"""From run directories to one HTML file that needs nothing but a browser."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raykd import __version__
from raykd.report import figures, sections, wording
from raykd.report.answer import answer
from raykd.report.costs import Cost, cost_of
from raykd.report.evidence import Evidence, collect
from raykd.report.slices import Panel, panels_of_client
from raykd.report.svg import WIDTH, Scale, marker, spanning
from raykd.report.views import views
from raykd.results.statistics import Metric, Score, case_scores, evaluated_cases, resampling_rng, score_methods
from raykd.scenario.errors import RaykdError

NUM_PANELS = 12
"""Sites drawn one by one; beyond that a reader compares nothing."""
NUM_SLICE_METHODS = 4
DRAWN: tuple[Metric, ...] = ("dsc", "nsd", "hd95_mm")


@dataclass(frozen=True)
class Drawing:
    """A figure under a heading."""

    title: str
    svg: Markup


def build_report(paths: Sequence[Path], out: Path) -> Path:
    """Write the report on all runs below `paths` as one self-contained HTML file.

    Args:
        paths: run directories, or study directories that hold some.
        out: the file to write, or an existing directory to put `report.html` into.

    Returns:
        The file written.

    Raises:
        RaykdError: a path holds no run, no run can be read, or the file cannot be written.
    """
    html = render(collect(paths))
    file = out / "report.html" if out.is_dir() else out
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(html, encoding="utf-8")
    except OSError as error:
        raise RaykdError(f"{file}: the report cannot be written ({error.strerror}); give another place") from None
    return file


def render(evidence: Evidence) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("raykd.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = environment.get_template("report.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = environment.get_template("report.html")
    return page.render(**_content(evidence), script=Markup(script), script_hash=digest, version=__version__)


def _content(evidence: Evidence) -> dict[str, Any]:
    scores = {metric: case_scores(evidence.deployed, metric) for metric in DRAWN}
    rankings: dict[str, tuple[Score, ...]] = {
        metric: score_methods(scores[metric], resampling_rng(), metric=metric) for metric in DRAWN
    }
    ranked = [score.method for score in rankings["dsc"]]
    methods = ranked + [method for method in evidence.methods if method not in ranked]
    order = {method: index for index, method in enumerate(methods)}
    costs = {method: cost_of(evidence, method) for method in methods}
    sites = _sites(evidence, rankings["dsc"])
    kinds = sorted({kind for cost in costs.values() for way in (cost.down, cost.up) for kind in way})
    in_common, provenance = sections.provenance(evidence)
    metrics = [metric for metric in DRAWN if len(scores[metric])]
    shown: dict[bytes, str] = {}
    return {
        "evidence": evidence,
        "answer": answer(evidence, rankings["dsc"], scores["dsc"], costs),
        "forest": figures.forest(rankings["dsc"], order, evidence.client_names) if ranked else None,
        "order": order,
        "federation": sections.federation_table(evidence),
        "teacher": sections.teacher_sentence(evidence),
        "comparison": sections.comparison_table(evidence, rankings, scores["dsc"], costs),
        "spreads": {metric: _spreads(evidence, metric, sites, order) for metric in metrics},
        "class_table": sections.class_table(evidence, metrics),
        "curves": _curves(evidence, sites, order),
        "kinds": kinds,
        "byte_table": sections.byte_table(costs, kinds),
        "bytes": _byte_bars(costs, kinds),
        "times": _time_bars(costs),
        "views": list(views(evidence, sites, methods, shown)),
        "slices": list(_slices(evidence, sites, methods[:NUM_SLICE_METHODS], shown)),
        "events": sections.event_table(evidence),
        "num_events": len(evidence.tables["events"]),
        "provenance": provenance,
        "in_common": in_common,
        "num_sites_hidden": max(0, evidence.deployed["client_id"].nunique() - len(sites)),
        "metric_names": sections.METRICS,
        "mark": lambda index: Markup(tostring(marker(index, 10, 7, ""), encoding="unicode")),
        "wording": wording,
    }


def _sites(evidence: Evidence, ranking: Sequence[Score]) -> list[int]:
    """The clients drawn one by one, in order; if they are too many, those where the best method does worst."""
    if not ranking:
        return sorted(evidence.client_names)[:NUM_PANELS]
    best = ranking[0].per_client
    return sorted(sorted(best, key=lambda client_id: best[client_id].value)[:NUM_PANELS])


def _spreads(evidence: Evidence, metric: str, sites: Sequence[int], order: Mapping[str, int]) -> list[Drawing]:
    cases = evidence.deployed[evidence.deployed["client_id"].isin(sites)].dropna(subset=[metric])
    cases = cases.groupby(["method", "client_id", "class_name", "case_id"], observed=True)[metric].mean().reset_index()
    values = cases[metric].tolist()
    by_client = ((client_id, cases[cases["client_id"] == client_id]) for client_id in sites)
    return [
        Drawing(evidence.name(client_id), figures.spread(rows, metric, values, order, evidence.name(client_id)))
        for client_id, rows in by_client
        if len(rows)
    ]


def _curves(evidence: Evidence, sites: Sequence[int], order: Mapping[str, int]) -> list[Drawing]:
    """The mean over all sites, then every site; empty where only one round was evaluated.

    In each round the model that is deployed in the end, or the shared one in rounds before there are others.
    """
    models = evidence.deployed.groupby("run_id", observed=True)["model"].first()
    shown = evaluated_cases(evidence.tables["cases"], {str(run_id): str(model) for run_id, model in models.items()})
    shown = shown.assign(rounds_done=lambda rows: rows["round"].astype("int64") + 1)
    if shown["rounds_done"].nunique() < 2:
        return []
    points = shown.groupby(["method", "client_id", "rounds_done"], observed=True)["dsc"].mean().rename("score").reset_index()
    x = Scale(float(points["rounds_done"].min()), float(points["rounds_done"].max()), 44.0, WIDTH - 12)
    y = spanning(points["score"].tolist(), 190.0, 10.0, upper=1.0)
    everywhere = points.groupby(["method", "rounds_done"])["score"].mean().reset_index()
    drawings = [Drawing("Mean over all sites", figures.curves(everywhere, x, y, order, "Mean over all sites"))]
    for client_id in sites:
        name = evidence.name(client_id)
        drawings.append(Drawing(name, figures.curves(points[points["client_id"] == client_id], x, y, order, name)))
    return drawings


def _byte_bars(costs: Mapping[str, Cost], kinds: Sequence[str]) -> list[Drawing]:
    if not kinds:
        return []
    drawings = []
    for title, way in (("Received by a site", "down"), ("Sent by a site", "up")):
        rows = []
        for method, cost in costs.items():
            sizes = cost.down if way == "down" else cost.up
            pieces = [(kind, sizes[kind], wording.data_size(sizes[kind])) for kind in kinds if kind in sizes]
            rows.append(figures.Bar(method, pieces, wording.data_size(sum(sizes.values()))))
        drawings.append(Drawing(title, figures.bars(rows, kinds, title, palette="k")))
    return drawings


def _time_bars(costs: Mapping[str, Cost]) -> list[Drawing]:
    titles = {
        "wall_s": "Simulating the rounds",
        "train_s": "Of which training, summed over sites",
        "simulated_s": "On the sites' own lines and machines",
        "teacher_s": "Training on the repository, before the rounds",
    }
    drawings = []
    for attribute, title in titles.items():
        known = {method: seconds for method, cost in costs.items() if not np.isnan(seconds := getattr(cost, attribute))}
        rows = [figures.Bar(method, [(method, s, wording.duration(s))], wording.duration(s)) for method, s in known.items()]
        if rows:
            drawings.append(Drawing(title, figures.bars(rows, list(costs), title)))
    return drawings


def _slices(
    evidence: Evidence, sites: Sequence[int], methods: Sequence[str], shown: dict[bytes, str]
) -> Iterator[tuple[str, list[Panel]]]:
    previews = evidence.tables["previews"]
    for client_id in sites:
        deployed = evidence.deployed[evidence.deployed["client_id"] == client_id]
        own = previews[previews["client_id"] == client_id]
        panels = list(panels_of_client(own, deployed, methods, shown, evidence.planes))
        if panels:
            yield evidence.name(client_id), panels
