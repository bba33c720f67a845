"""From the `cases` table to statements about methods: trainings (seeds) are the outer clusters, patients those within them.

`scores` says what is compared, `clusters` how sure a mean is, `sample` of whom it is, `paired` what sets two methods apart,
`families` what several comparisons amount to together, `ranking` how all fare, `uncertain` what becomes of an interval in sums and
products.
"""

from raykd.results.statistics.clusters import Clusters
from raykd.results.statistics.families import (
    ALPHA,
    BETTER,
    MARGIN,
    NO_VERDICT,
    NOT_WORSE,
    OPEN,
    WORSE,
    holm,
    judge,
    verdict,
)
from raykd.results.statistics.intervals import (
    NOTHING,
    NUM_RESAMPLES,
    Estimate,
    columns_of,
    percentiles,
    resampling_rng,
)
from raykd.results.statistics.paired import Difference, hodges_lehmann, paired_difference, rank_biserial
from raykd.results.statistics.ranking import Score, rank_methods, score_methods, spreads
from raykd.results.statistics.sample import FEW_CLIENTS, Sample
from raykd.results.statistics.scores import (
    HIGHER_IS_BETTER,
    MODELS,
    PATIENT,
    RANGES,
    Metric,
    case_scores,
    deployed_cases,
    evaluated_cases,
    patient_scores,
    site_scores_by_round,
)
from raykd.results.statistics.uncertain import Uncertain, drawn, sure

__all__ = [
    "ALPHA",
    "BETTER",
    "FEW_CLIENTS",
    "HIGHER_IS_BETTER",
    "MARGIN",
    "MODELS",
    "NOTHING",
    "NOT_WORSE",
    "NO_VERDICT",
    "NUM_RESAMPLES",
    "OPEN",
    "PATIENT",
    "RANGES",
    "WORSE",
    "Clusters",
    "Difference",
    "Estimate",
    "Metric",
    "Sample",
    "Score",
    "Uncertain",
    "case_scores",
    "columns_of",
    "deployed_cases",
    "drawn",
    "evaluated_cases",
    "hodges_lehmann",
    "holm",
    "judge",
    "paired_difference",
    "patient_scores",
    "percentiles",
    "rank_biserial",
    "rank_methods",
    "resampling_rng",
    "score_methods",
    "site_scores_by_round",
    "spreads",
    "sure",
    "verdict",
]
