"""How sure a score is: an interval for one configuration, a paired test for two, Holm's correction for many.

scipy is imported where it is used: it probes for torch on import, and this module must load without it.
"""

from collections.abc import Sequence

import numpy as np


def bootstrap_ci(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean, resampling questions and, where there are several, seeds.

    `values` holds one score per question, 0.0 to 1.0, or has the shape (questions, seeds): each resample draws
    questions, and then seeds for all of them at once, so that ten seeds on 200 questions never look like 2,000
    questions, and a lucky seed is drawn as a whole. Sources: Efron and Tibshirani (1993), chapter 13; Owen (2007),
    "The pigeonhole bootstrap".

    Example: bootstrap_ci([1.0] * 82 + [0.0] * 118) -> about (0.34, 0.48)
    """
    scores = _by_seed(values)
    questions, seeds = scores.shape
    if questions < 2:
        raise ValueError(f"Found {questions} scored questions; an interval needs at least 2.")
    if np.ptp(scores) == 0:
        return float(scores[0, 0]), float(scores[0, 0])  # nothing varies, so resampling cannot either
    from scipy import stats

    draw = np.random.default_rng([seed, 1])  # its own stream: the questions drawn do not depend on how many seeds ran

    def mean(drawn, axis):
        weights = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=drawn.shape[:-1]) / seeds
        return (scores[drawn.astype(int)].mean(axis=-2) * weights).sum(axis=-1)

    interval = stats.bootstrap(
        (np.arange(questions),),
        mean,
        confidence_level=confidence,
        n_resamples=9999,
        batch=1000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def paired_test(a: Sequence[float], b: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Compare two configurations on the same questions: mean difference a - b, its interval and a p-value.

    Scores of 0 and 1 (exact match) from one seed take the exact McNemar test, a binomial test on the questions where
    the two disagree; others (F1, or several seeds, averaged by question) a permutation test that flips the sign of
    each question's difference. Shapes are (questions,) or (questions, seeds); one seed, such as the base model's, is
    set against each of the other's. The p-value speaks of these seeds' adapters on other questions; only the interval
    also allows for other seeds. Keys: difference, low, high (95 % bootstrap interval), p_value, n, seeds.

    Example: paired_test([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0])["p_value"] -> 0.03125
    """
    shapes, a, b = f"{np.shape(a)} and {np.shape(b)}", _by_seed(a), _by_seed(b)
    if len(a) != len(b) or len({a.shape[1], b.shape[1]} - {1}) > 1:
        raise ValueError(f"Found scores of shapes {shapes}; expected the same questions, and as many seeds, in both.")
    from scipy import stats

    by_seed = a - b
    difference = by_seed.mean(axis=1)
    if not difference.any():
        p_value = 1.0
    elif by_seed.shape[1] == 1 and np.isin(np.concatenate([a, b]), (0.0, 1.0)).all():
        wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
        p_value = stats.binomtest(wins, wins + losses).pvalue
    else:
        p_value = stats.permutation_test(
            (difference,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(seed)
        ).pvalue
    low, high = bootstrap_ci(by_seed, seed=seed)
    found = {"difference": float(difference.mean()), "low": low, "high": high, "p_value": float(p_value)}
    return found | {"n": len(a), "seeds": by_seed.shape[1]}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number: at 0.05, one false finding in the whole family at most once in 20.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none may fall below one before it. Source:
    Holm (1979). scipy corrects the false discovery rate only, which is a weaker promise.

    Example: holm([0.01, 0.04, 0.03]) -> [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def _by_seed(values: Sequence[float]) -> np.ndarray:
    scores = np.asarray(values, dtype=float)
    return scores[:, None] if scores.ndim == 1 else scores
