"""Questions that a decision needs, one call each: every call takes a `Comparison` of runs and returns a frame with intervals.

comparison = Comparison.of(raykd.load_runs(["runs/my-study"]))
labels_saved(comparison, "dual_kd", "fedavg")
"""

from raykd.results.questions.comparison import Comparison
from raykd.results.questions.costs import communication, cost_to_target
from raykd.results.questions.differences import ablation, differences, when_does_it_pay
from raykd.results.questions.failures import failures, worst_cases
from raykd.results.questions.labels import label_area, label_curve, labels_saved
from raykd.results.questions.leaks import leaks_found, privacy_spent
from raykd.results.questions.sites import fairness, site_gains, teacher_effect

__all__ = [
    "Comparison",
    "ablation",
    "communication",
    "cost_to_target",
    "differences",
    "failures",
    "fairness",
    "label_area",
    "label_curve",
    "labels_saved",
    "leaks_found",
    "privacy_spent",
    "site_gains",
    "teacher_effect",
    "when_does_it_pay",
    "worst_cases",
]
