"""`raykd leaks`: what it attacks is what was sent, its table is the run's own, and a run without uploads is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from raykd.cli import app
from raykd.data.case import Case
from raykd.leaks.evidence import evidence_of
from raykd.leaks.membership import METRICS, _as_outlined, membership_rows
from raykd.results.checksums import findings
from raykd.results.comparison import table_differences
from raykd.results.questions import Comparison, leaks_found
from raykd.results.reader import Tables, open_run
from raykd.scenario.errors import RaykdError

Record = Callable[..., Any]


def copied(recording: Any, folder: Path) -> Path:
    """A run of its own, since the recording is other tests' too."""
    shutil.copytree(recording.outcome.path, folder)
    return folder


@pytest.fixture(scope="module")
def attacked(record: Record, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = copied(record("method={name: fedavg}"), tmp_path_factory.mktemp("leaks") / "run")
    result = CliRunner().invoke(app, ["leaks", str(folder), "--steps", "3"], catch_exceptions=False)
    assert result.exit_code == 0
    return folder, result.output


def test_the_update_that_is_done_again_is_the_one_that_was_sent(record: Record) -> None:
    """So that the patches that reconstructions are compared with are those that the site trained on."""
    for evidence in evidence_of(record("method={name: fedavg}").outcome.path):
        assert sum(len(batch.image_BCIJK) for batch in evidence.trained_on) == 4
        assert evidence.round_index == 1
        again = evidence.client.network_of("student").state_dict()
        assert all(torch.equal(again[key.removeprefix("params/")], value) for key, value in evidence.upload.items())


def test_every_client_is_attacked_and_all_together(attacked: tuple[Path, str]) -> None:
    table = open_run(attacked[0]).leaks
    assert sorted(table["client_id"].unique()) == [-2, 0, 1, 2]
    of_one = table[table["client_id"] == 0]
    assert sorted(of_one["attack"].astype(str).unique()) == ["gradient_inversion", "membership_calibrated", "membership_loss"]
    images = of_one[of_one["attack"] == "gradient_inversion"]
    assert images["unseen"].notna().all() and (images["num_members"] == images["num_others"]).all()
    members = of_one[of_one["attack"].astype(str).str.startswith("membership")]
    assert members["is_leaking"].isna().all()  # one case on each side
    rates = dict(zip(members["metric"].astype(str), members["blind"], strict=True))
    assert rates == {"auc": 0.5, "tpr_at_fpr_1pct": 0.01, "tpr_at_fpr_10pct": 0.1}
    assert "too few cases (a false positive rate of 1% asks for 100 held-out cases a site)" in attacked[1]
    assert attacked[1].splitlines()[-1].endswith("got beyond what is known anyway")


def test_the_run_stays_sound_and_what_was_found_is_no_part_of_it(attacked: tuple[Path, str], record: Record) -> None:
    assert findings(attacked[0]) == []
    assert list(table_differences(open_run(attacked[0]), record("method={name: fedavg}").outcome.run)) == []


def test_the_same_attack_finds_the_same(attacked: tuple[Path, str]) -> None:
    before = open_run(attacked[0]).leaks
    CliRunner().invoke(app, ["leaks", str(attacked[0]), "--steps", "3", "--json"], catch_exceptions=False)
    assert open_run(attacked[0]).leaks.equals(before)


def test_the_question_tells_verdicts_and_warns_of_leaks_alone(attacked: tuple[Path, str]) -> None:
    found = leaks_found(Comparison.of(Tables((open_run(attacked[0]),))))
    assert set(found["verdict"]) <= {"leaks", "nothing found", "too few cases"}
    assert ((found["warning"] != "") == (found["verdict"] == "leaks")).all()


def test_prototypes_are_inverted_with_the_sites_own_model(record: Record, tmp_path: Path) -> None:
    folder = copied(record("method={name: fedproto}"), tmp_path / "run")
    CliRunner().invoke(app, ["leaks", str(folder), "--steps", "2", "--quiet"], catch_exceptions=False)
    table = open_run(folder).leaks
    assert set(table["attack"].astype(str)) == {"prototype_inversion"} and set(table["client_id"]) == {0, 1, 2}
    assert table["knows"].astype(str).str.contains("worst case").all()


@pytest.mark.parametrize("words", [("method={name: local}",), ("method={name: centralised}",)])
def test_a_run_without_uploads_is_refused(words: tuple[str, ...], record: Record) -> None:
    with pytest.raises(RaykdError, match="nothing to attack"):
        list(evidence_of(record(*words).outcome.path))


def test_members_and_others_are_judged_by_the_classes_that_the_site_outlines() -> None:
    """A test case holds classes 1 and 2; where the labelled cases have class 1 alone, class 2 is background of both."""
    label = torch.tensor([0, 1, 2], dtype=torch.uint8).view(3, 1, 1)
    case = Case("c", "p", torch.zeros(1, 3, 1, 1), label, np.eye(4))
    for annotated, expected in (((1,), [0, 1, 0]), (None, [0, 1, 2])):
        client = SimpleNamespace(annotated=annotated, scenario=SimpleNamespace(classes=("liver", "spleen")))
        judged = _as_outlined(client, case)  # type: ignore[arg-type]
        assert judged.label_IJK is not None and judged.label_IJK.flatten().tolist() == expected
        assert judged.outlined == annotated


@pytest.mark.parametrize(("num_others", "judged"), [(9, {"auc"}), (10, {"auc", "tpr_at_fpr_10pct"}), (100, set(METRICS))])
def test_a_rate_of_false_alarms_is_judged_where_so_many_cases_were_held_back(num_others: int, judged: set[str]) -> None:
    """Every member is above every other, at one site with enough cases and at another with these."""
    scores = [200.0, 201.0, 202.0], [float(n) for n in range(num_others)]
    groups = {0: ([200.0] * 3, [float(n) for n in range(100)]), 1: scores}
    rows = {row["metric"]: row for row in membership_rows("membership_loss", groups, 0, (0, -2))}
    assert {metric for metric, row in rows.items() if row.get("is_leaking")} == judged
    assert {row["value"] for row in rows.values()} == {1.0} and {row["num_others"] for row in rows.values()} == {100 + num_others}


@pytest.mark.parametrize(
    ("num_members", "num_others", "is_leaking"),
    [(3, 3, None), (3, 4, None), (3, 5, True), (4, 4, True)],  # 1 labelling of 20, 35, 56 and 70 is a perfect split
)
def test_a_perfect_split_leaks_where_chance_would_split_one_in_forty_at_most(
    num_members: int, num_others: int, is_leaking: bool | None
) -> None:
    groups = {0: ([200.0 + n for n in range(num_members)], [float(n) for n in range(num_others)])}
    (row,) = (row for row in membership_rows("membership_loss", groups, 0, (0, 0)) if row["metric"] == "auc")
    assert row.get("is_leaking") is is_leaking and row["value"] == 1.0
    assert is_leaking is None or (0.5 < row["low"] < 0.7 and row["high"] == 1.0)


def test_an_interval_ends_at_chance_where_the_test_that_holds_for_few_cases_does_not_leave_it_out() -> None:
    """One of 16 pairs is the wrong way round: two labellings of 70 reach as much, 2.9%. The score interval alone ends above 0.5."""
    groups = {0: ([10.0, 11.0, 12.0, 3.5], [0.0, 1.0, 2.0, 4.0])}
    (row,) = (row for row in membership_rows("membership_loss", groups, 0, (0, 0)) if row["metric"] == "auc")
    assert row["value"] == 15 / 16 and row["low"] == 0.5 and row["is_leaking"] is False
