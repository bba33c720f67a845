"""What the tables say of a site and of its cases before the first round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raykd.data.case import Case, affine_from_spacing
from raykd.data.federation import build_client_data, client_site
from raykd.federation.description import client_row, describe_noise, describe_scanner, record_rows, source_settings
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.sites import LabelNoise, Scanner


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (LabelNoise(), None),
        (LabelNoise(boundary_mm=1.5), "boundaries off by 1.5 mm"),
        (LabelNoise(bias_mm=-0.5, missing=0.1), "0.5 mm too narrow, 10% of components overlooked"),
        (LabelNoise(bias_mm=2.0), "2 mm too wide"),
    ],
)
def test_annotators_are_told_by_how_they_err(noise: LabelNoise, words: str | None) -> None:
    assert describe_noise(noise) == words


def test_a_scanner_is_told_by_its_source_and_by_what_it_changes() -> None:
    source = type("Source", (), {"name": "folder"})
    assert describe_scanner(source, Scanner()) == "as in its source"
    words = describe_scanner(source, Scanner(noise=0.0812345, gamma=(0.8, 1.25)))
    assert words == "noise 0.0812, gamma 0.8 to 1.25"
    source.protocol = "dess_we"
    assert describe_scanner(source, Scanner()) == "dess_we"


def test_every_value_drawn_for_a_case_is_a_row_number_or_words() -> None:
    image = torch.zeros(1, 2, 2, 2)
    case = Case(
        "c", "p", image, None, affine_from_spacing((1.0, 1.0, 1.0), (2, 2, 2)), {"scanner.gamma": 1, "phantom.side": "left"}
    )
    held = {"labelled": (), "test": (case,)}
    common = {"client_id": 4, "split": "test", "case_id": "c", "patient_id": "p"}
    assert record_rows(4, held) == [
        {**common, "name": "scanner.gamma", "value": 1.0, "words": None},
        {**common, "name": "phantom.side", "value": None, "words": "left"},
    ]


def test_a_site_that_draws_on_a_pool_is_told_by_the_pool_s_source(tiny: dict[str, Any]) -> None:
    own = {**tiny["clients"][0]["source"], "num_cases": 8}
    tiny["pools"] = {"all": {"source": own}}
    for group in tiny["clients"]:
        group["source"] = {"name": "pool", "pool": "all"}
    scenario = scenario_from_dict(tiny, Path("/"), ()).scenario
    member = scenario.members()[0]
    assert source_settings(scenario, member).name == own["name"] == "phantom"
    row = client_row(scenario, member, build_client_data(scenario, member, Path("/")))
    assert row["source"] == "phantom, knee"


def test_a_row_of_clients_tells_when_a_site_is_there_and_what_its_annotators_do(run: Callable[..., Any]) -> None:
    settings = ("availability={joins: 1, leaves: 2}", "labels.slices=0.5", "labels.noise={missing: 0.2}")
    outcome = run("method={name: teacher_only}", *(f"clients[0].{setting}" for setting in settings))
    one, other = (outcome.table("clients").set_index("client_id").loc[client_id] for client_id in (0, 2))
    assert (one["joins"], one["leaves"], one["label_slices"], one["label_noise"]) == (1, 2, 0.5, "20% of components overlooked")
    assert other["joins"] == 0 and other[["leaves", "label_noise", "split_unit"]].isna().all()
    assert (other["label_slices"], other["slice_gap_mm"], other["source"]) == (1.0, 0.0, "phantom, knee")


def test_records_hold_every_case_of_everyone_once_as_it_was_prepared(record: Callable[..., Any]) -> None:
    recording = record("method={name: teacher_only}")
    records, clients = recording.outcome.table("records"), recording.outcome.table("clients")
    assert not records.duplicated(["client_id", "case_id", "name"]).any()
    cases = records.groupby(["client_id", "split"], observed=True)["case_id"].nunique()
    for _, client in clients.iterrows():
        for split in ("labelled", "unlabelled", "test"):
            assert cases.get((client["client_id"], split), 0) == client[f"num_{split}"]
    assert dict(cases.loc[-1]) == {"labelled": 1, "validation": 1}
    source = client_site(recording.scenario, recording.scenario.members()[0], Path("/")).source
    drawn = source.load(source.keys()[0]).record
    of_case = records[(records["client_id"] == 0) & (records["case_id"] == source.keys()[0].case_id)].set_index("name")
    numbers = {name: value for name, value in drawn.items() if not isinstance(value, str)}
    assert numbers and of_case.loc[list(numbers), "value"].tolist() == list(numbers.values())
    assert of_case.loc["phantom.side", "words"] == drawn["phantom.side"] and of_case.loc["resolution.spacing_i_mm", "value"] == 8.0
