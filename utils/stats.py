"""How sure a score is: an interval for one configuration, a paired test for two (both from scipy).

scipy is imported where it is used: it probes for torch on import, and this module must load without it.
"""

from collections.abc import Sequence

import numpy as np


def bootstrap_ci(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean, resampling questions.

    `values` holds one score per question, 0.0 to 1.0; where several seeds answered the same questions, pass the
    array of shape (questions, seeds): its seeds are averaged first, so that a question is drawn as a whole and
    ten seeds on 200 questions never look like 2,000 questions. Source: Efron and Tibshirani (1993), chapter 13.

    Example: bootstrap_ci([1.0] * 82 + [0.0] * 118) -> about (0.34, 0.48)
    """
    per_question = np.asarray(values, dtype=float)
    if per_question.ndim == 2:
        per_question = per_question.mean(axis=1)
    if per_question.size < 2:
        raise ValueError(f"Found {per_question.size} scored questions; an interval needs at least 2.")
    if np.ptp(per_question) == 0:
        return float(per_question[0]), float(per_question[0])  # nothing varies, so resampling cannot either
    from scipy import stats

    interval = stats.bootstrap(
        (per_question,),
        np.mean,
        confidence_level=confidence,
        n_resamples=9999,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def paired_test(a: Sequence[float], b: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Compare two configurations on the same questions: mean difference a - b, its interval and a p-value.

    Scores of 0 and 1 (exact match) take the exact McNemar test, a binomial test on the questions where the two
    disagree; other scores (F1) a permutation test that flips the sign of each question's difference.
    Keys: difference, low, high (95 % bootstrap interval), p_value, n.

    Example: paired_test([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0])["p_value"] -> 0.03125
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"Found scores of shapes {a.shape} and {b.shape}; expected one score per question in both.")
    from scipy import stats

    difference = a - b
    if not difference.any():
        p_value = 1.0
    elif np.isin(np.concatenate([a, b]), (0.0, 1.0)).all():
        wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
        p_value = stats.binomtest(wins, wins + losses).pvalue
    else:
        p_value = stats.permutation_test(
            (difference,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(seed)
        ).pvalue
    low, high = bootstrap_ci(difference, seed=seed)
    return {"difference": float(difference.mean()), "low": low, "high": high, "p_value": float(p_value), "n": a.size}
