"""From the `cases` table to statements about methods: patients are the unit, visits and seeds are averaged first.

`scores` says what is compared, `intervals` how sure a mean is, `paired` what sets two methods apart, `ranking` how all fare,
`uncertain` what becomes of an interval in sums and products.
"""

from raykd.results.statistics.intervals import (
    FEW_CLIENTS,
    NOTHING,
    NUM_RESAMPLES,
    Estimate,
    Sample,
    mean_of,
    percentiles,
    resampling_rng,
)
from raykd.results.statistics.paired import (
    MARGIN,
    Difference,
    columns_of,
    compare_with,
    hodges_lehmann,
    holm,
    paired_difference,
    rank_biserial,
    verdict,
)
from raykd.results.statistics.ranking import Score, rank_methods, score_methods, spreads
from raykd.results.statistics.scores import (
    HIGHER_IS_BETTER,
    MODELS,
    Metric,
    case_scores,
    deployed_cases,
    evaluated_cases,
    patient_scores,
)
from raykd.results.statistics.uncertain import Uncertain, drawn, sure

__all__ = [
    "FEW_CLIENTS",
    "HIGHER_IS_BETTER",
    "MARGIN",
    "MODELS",
    "NOTHING",
    "NUM_RESAMPLES",
    "Difference",
    "Estimate",
    "Metric",
    "Sample",
    "Score",
    "Uncertain",
    "case_scores",
    "columns_of",
    "compare_with",
    "deployed_cases",
    "drawn",
    "evaluated_cases",
    "hodges_lehmann",
    "holm",
    "mean_of",
    "paired_difference",
    "patient_scores",
    "percentiles",
    "rank_biserial",
    "rank_methods",
    "resampling_rng",
    "score_methods",
    "spreads",
    "sure",
    "verdict",
]
