"""Questions that a decision needs, one call each: every call takes a `Comparison` of runs and returns a frame with intervals.

comparison = Comparison.of(raykd.load_runs(["runs/my-study"]))
labels_saved(comparison, "dual_kd", "fedavg")
"""

from raykd.results.questions.calibration import calibration, reliability
from raykd.results.questions.comparison import Comparison
from raykd.results.questions.costs import communication, cost_to_target, work_of
from raykd.results.questions.differences import ablation, differences, when_does_it_pay
from raykd.results.questions.economics import Prices, assumptions, running_costs, worth
from raykd.results.questions.failures import failures, worst_cases
from raykd.results.questions.false_positives import false_positives
from raykd.results.questions.labels import label_area, label_curve, labels_saved, labels_to_target
from raykd.results.questions.leaks import leaks_found, privacy_spent
from raykd.results.questions.references import native_references
from raykd.results.questions.sites import fairness, site_gains, teacher_effect
from raykd.results.questions.times import stages, to_target, traffic

__all__ = [
    "Comparison",
    "Prices",
    "ablation",
    "assumptions",
    "calibration",
    "communication",
    "cost_to_target",
    "differences",
    "failures",
    "fairness",
    "false_positives",
    "label_area",
    "label_curve",
    "labels_saved",
    "labels_to_target",
    "leaks_found",
    "native_references",
    "privacy_spent",
    "reliability",
    "running_costs",
    "site_gains",
    "stages",
    "teacher_effect",
    "to_target",
    "traffic",
    "when_does_it_pay",
    "work_of",
    "worst_cases",
    "worth",
]
