"""What may be called how, and what files about it are called."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

from raykd.scenario.errors import ScenarioError
from raykd.scenario.labels import file_id, is_label
from raykd.scenario.load import load_scenario

BASE = Path(__file__).parent / "good/base.yaml"
OSAKA, ARABIC, EMOJI, PERSIAN = "大阪市立総合医療センター", "مستشفى الملك فهد", "🏥 👨\u200d👩\u200d👧", "می\u200cشود"
SHOWN = [OSAKA, ARABIC, EMOJI, PERSIAN, "left kidney", "Klinikum Köln", "T2*", 'Dr. O\'Neil & "Sons" <b>', "50 %", "x" * 64]
HIDDEN = ["", " a", "a ", "a  b", "a\tb", "a\nb", "a/b", "a\\b", "../x", ".hidden", "-rf", "~", "$HOME", "=1+1", "x" * 65]
HIDDEN += ["a\u202eb", "\u200b", "a\u00a0b", "a\u2028b", "\ufeffa", "\ud800"]


@pytest.mark.parametrize("label", SHOWN)
def test_a_label_may_be_of_any_script(label: str) -> None:
    assert is_label(label)


@pytest.mark.parametrize("label", HIDDEN)
def test_what_cannot_be_seen_or_leads_elsewhere_is_no_label(label: str) -> None:
    assert not is_label(label)


@pytest.mark.parametrize("label", ["community-0", "femoral_cartilage", "T2.w", "a", "0", "x" * 70, "Rural"])
def test_plain_labels_are_their_own_ids_so_that_old_runs_are_read(label: str) -> None:
    assert file_id(label) == label


def test_ids_are_safe_and_never_the_same_for_two_labels() -> None:
    labels = [*SHOWN, *(f"{label}-0" for label in SHOWN), "left_kidney", "left-kidney", "Left kidney", "大阪", "京都", "🏥", "🏫"]
    ids = [file_id(label) for label in labels]
    assert len({one.casefold() for one in ids}) == len(labels)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", one) for one in ids)
    assert file_id("left kidney").startswith("left-kidney-") and file_id("Klinikum Köln").startswith("Klinikum-Koln-")
    assert file_id("Köln") == file_id(unicodedata.normalize("NFD", "Köln"))


def test_groups_sites_and_classes_of_a_scenario_are_labels_in_one_spelling() -> None:
    decomposed = unicodedata.normalize("NFD", "がん é")
    sets = [
        f"classes=[{OSAKA}, '{decomposed}']",
        f"clients[0].group={EMOJI}",
        f"clients[1].group='{unicodedata.normalize('NFD', 'Köln')}'",
    ]
    sets += [
        "clients[0].labels.classes=['がん é']",
        f"repository.classes=['{decomposed}']",
        "clients[1].scanner={noise: {uniform: [0, 1]}}",
        "clients[1].source={name: synthetic, num_cases: 6}",
    ]
    scenario = load_scenario(BASE, sets).scenario
    assert scenario.classes == (OSAKA, "がん é") and scenario.repository.classes == ("がん é",)
    assert [member.name for member in scenario.members()] == [f"{EMOJI}-0", f"{EMOJI}-1", "Köln"]
    again = load_scenario(BASE, [*sets[:2], "clients[1].group=Köln", *sets[3:]]).scenario
    assert again == scenario  # what is drawn for a site depends on its name, not on how it was typed
    with pytest.raises(ScenarioError, match="any script, begin with a letter"):
        load_scenario(BASE, ["clients[0].group=a/b"])
    with pytest.raises(ScenarioError, match="must differ from one another"):
        load_scenario(BASE, [f"classes=['{decomposed}', 'がん é']"])
