"""What each site sees: a case as its source has it, as the site acquires it, with the reference and with a prediction."""

from __future__ import annotations

from raykd.report.blocks import Block, Facts, Heading, Pictures, Text
from raykd.report.material import Material
from raykd.report.views import views

KEY = "views"
TITLE = "What each site sees"
NEEDS = "slices of test cases; set evaluation.previews to 1 or more"
WORDS = (
    "A test case in the same plane and extent, in true proportion: as its source has it, as the site acquires it, with the "
    "reference, and with what the model makes of it. The bar is 20 mm. What was drawn for each case is in the table records."
)


def page(material: Material) -> list[Block]:
    """The repository and every site of which slices were kept."""
    blocks: list[Block] = []
    for view in views(material.evidence, material.sites, material.labels, material.structures, material.shown):
        keys = {} if view.is_repository else {"site": view.name}
        blocks.append(Heading(view.name, keys))
        if view.facts:
            blocks.append(Facts(view.facts, keys))
        blocks += [Pictures(title, panels, keys) for title, panels in view.cases]
    return [Text(WORDS), *blocks] if blocks else []
