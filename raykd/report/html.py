"""The report as one HTML file that needs nothing but a browser."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.etree.ElementTree import tostring

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raykd import __version__
from raykd.report import figures, wording
from raykd.report.blocks import FACETS, Keys
from raykd.report.contenders import contenders
from raykd.report.material import Material
from raykd.report.pictures import class_style
from raykd.report.svg import marker
from raykd.results.statistics import Score

if TYPE_CHECKING:
    from raykd.report.build import Report

DIGITS = 6
"""Significant digits of the numbers behind a figure."""


def render_html(report: Report) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("raykd.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(
        wording=wording, attributes=attributes, csv_link=csv_link, file_name=file_name, class_style=class_style
    )
    environment.globals.update(
        mark=lambda index: Markup(tostring(marker(index, 10, 7, ""), encoding="unicode")), material=report.material
    )
    script = environment.get_template("report.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    ranking = first_ranking(report.material)
    return environment.get_template("report.html").render(
        evidence=report.material.evidence,
        answer=report.answer,
        pages=report.pages,
        absent=report.absent,
        facets=facets(report.material),
        forest=figures.forest(ranking, report.material) if ranking else None,
        forest_data=figures.forest_data(ranking, report.material),
        script=Markup(script),
        script_hash=digest,
        version=__version__,
    )


def first_ranking(material: Material) -> tuple[Score, ...]:
    """The scores that the first screen draws: of the condition under which the best method does best."""
    found = contenders(material)
    if found is None:
        return ()
    return tuple(score for score in material.rankings["dsc"] if material.condition(score.method) == found.condition)


def facets(material: Material) -> dict[str, tuple[str, ...]]:
    """What a reader can filter by, where there is a choice."""
    sites = tuple(material.evidence.client_names[client_id] for client_id in sorted(material.evidence.client_names))
    every = dict(zip(FACETS, (material.methods, material.conditions, sites, material.structures), strict=True))
    return {facet: values for facet, values in every.items() if len(values) > 1}


def attributes(keys: Keys) -> Markup:
    """What an element is about, as attributes."""
    return Markup("").join(Markup(' data-{}="{}"').format(name, words) for name, words in keys.items())


def csv_link(data: pd.DataFrame) -> str:
    """The numbers as an address that a browser saves as a CSV file, with the mark by which spreadsheets know UTF-8."""
    return "data:text/csv;charset=utf-8," + quote("\ufeff" + data.to_csv(index=False, float_format=f"%.{DIGITS}g"))


def file_name(*words: str) -> str:
    """A name that any file system takes; words beyond ASCII are told apart by a hash."""
    whole = "-".join(words)
    kept = "".join(letter.lower() if letter.isascii() and letter.isalnum() else "-" for letter in whole)
    slug = "-".join(part for part in kept.split("-") if part)[:80]
    return f"{slug}.csv" if whole.isascii() else f"{slug}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}.csv"
