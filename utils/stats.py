"""How sure a score is: an interval for one configuration, a paired test for two, Holm's correction for many.

scipy is imported where it is used: it probes for torch on import, and this module must load without it.
"""

import math
from collections.abc import Sequence

import numpy as np

LEVEL = 0.05  # a p-value below it is called a finding
_Z = 1.959964  # of the normal distribution 95 % lie within so many standard deviations


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean score over questions, and over seeds where there are several.

    Scores of 0 and 1 from one seed, the shape (questions,) or (questions, 1), take Wilson's interval; others the
    bootstrap, but where every score is the same: that has no width, and Wilson's interval of the mean stands in, the
    wider one, for no scores between 0 and 1 vary more than zeros and ones of the same mean.
    Example: mean_interval([1.0] * 82 + [0.0] * 118) -> (0.344, 0.479)
    """
    scores = _by_seed(values)
    if np.ptp(scores) == 0 or (scores.shape[1] == 1 and np.isin(scores, (0.0, 1.0)).all()):
        return wilson(float(scores.mean()), len(scores))
    return bootstrap_ci(scores)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share out of n questions (Wilson, 1927).

    It keeps its promise where few are right, or nearly all: at n = 39 and a true share of .04 the percentile bootstrap
    holds the truth in .79 of draws, Wilson's interval in .93.
    Example: wilson(0.0, 39) -> (0.0, 0.09)
    """
    if n < 1 or not 0 <= share <= 1:
        raise ValueError(f"Found a share of {share} of {n} questions; expected one from 0 to 1 of 1 question or more.")
    middle = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + (_Z / (2 * n)) ** 2)
    low, high = (middle - half) / (1 + _Z**2 / n), (middle + half) / (1 + _Z**2 / n)
    return max(0.0, low) if share else 0.0, min(1.0, high) if share < 1 else 1.0


def bootstrap_ci(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean, resampling questions and, where there are several, seeds.

    `values` holds one score per question, or has the shape (questions, seeds): each resample draws questions, and then
    seeds for all of them at once, so that ten seeds on 200 questions never look like 2,000 questions, and a lucky seed
    is drawn as a whole. Few seeds say little of others: the interval is over these. Sources: Efron and Tibshirani (1993),
    chapter 13; Owen (2007), "The pigeonhole bootstrap".
    Example: bootstrap_ci([0.5] * 82 + [0.0] * 118) -> about (0.17, 0.24)
    """
    scores = _by_seed(values)
    questions, seeds = scores.shape
    if questions < 2:
        raise ValueError(f"Found {questions} scored questions; an interval needs at least 2.")
    from scipy import stats

    draw = np.random.default_rng([0, 1])  # its own stream: the questions drawn do not depend on how many seeds ran

    def mean(drawn, axis):
        weights = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=drawn.shape[:-1]) / seeds
        return (scores[drawn.astype(int)].mean(axis=-2) * weights).sum(axis=-1)

    found = stats.bootstrap((np.arange(questions),), mean, n_resamples=9999, batch=1000, method="percentile", rng=0)
    return tuple(map(float, found.confidence_interval))


def paired_test(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Compare two configurations on the same questions: mean difference a - b, its interval and a p-value.

    Scores of 0 and 1 (exact match) from one seed take the exact McNemar test, a binomial test on the questions where
    the two disagree; others (F1, or several seeds, averaged by question) a permutation test that flips the sign of
    each question's difference. Shapes are (questions,) or (questions, seeds); one seed, such as the base model's, is
    set against each of the other's. The p-value speaks of these seeds' adapters on other questions; only the interval
    also allows, in part, for others. Keys: difference, low, high (95 % bootstrap interval; where the difference is the
    same on every question, as far to both sides as Wilson's interval of none), p_value, n, seeds, and could_show: the
    smallest difference that this n could have shown (for McNemar's test `smallest_difference`, else half the interval).
    Example: paired_test([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0])["p_value"] -> 0.03125
    """
    shapes, a, b = f"{np.shape(a)} and {np.shape(b)}", _by_seed(a), _by_seed(b)
    if len(a) != len(b) or len({a.shape[1], b.shape[1]} - {1}) > 1:
        raise ValueError(f"Found scores of shapes {shapes}; expected the same questions, and as many seeds, in both.")
    from scipy import stats

    by_seed = a - b
    difference, n = by_seed.mean(axis=1), len(a)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    mcnemar = by_seed.shape[1] == 1 and np.isin(np.concatenate([a, b]), (0.0, 1.0)).all()
    if wins + losses == 0:
        p_value = 1.0
    elif mcnemar:
        p_value = stats.binomtest(wins, wins + losses).pvalue
    else:
        flipped = stats.permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=9999, rng=0)
        p_value = flipped.pvalue
    if np.ptp(by_seed) == 0:
        mean, reach = float(by_seed[0, 0]), wilson(0.0, n)[1]
        low, high = max(-1.0, mean - reach), min(1.0, mean + reach)
    else:
        low, high = bootstrap_ci(by_seed)
    could_show = smallest_difference(n, (wins + losses) / n) if mcnemar else (high - low) / 2
    found = {"difference": float(difference.mean()), "low": low, "high": high, "p_value": float(p_value)}
    return found | {"n": n, "seeds": by_seed.shape[1], "could_show": could_show}


def smallest_difference(n: int, discordant: float) -> float:
    """Return the smallest difference in exact match that n questions could have shown at p < .05, uncorrected.

    `discordant` is the share of questions on which exactly one of the two runs is right: d = n * discordant of them,
    rounded. The fewest wins w of d at which the exact two-sided McNemar test falls below .05 give (2w - d) / n. Fewer
    than six disagreements never reach .05, so six is the least that is taken, and of fewer questions it is infinite.
    Example: smallest_difference(200, 0.25) -> 0.08 (33 against 17 of 50)
    """
    from scipy.stats import binomtest

    if (d := max(6, round(n * discordant))) > n:
        return math.inf
    wins = next(wins for wins in range(d // 2 + 1, d + 1) if binomtest(wins, d).pvalue < LEVEL)
    return (2 * wins - d) / n


def unpaired_test(p1: float, n1: int, p2: float, n2: int) -> dict[str, float]:
    """Compare two shares of which only the sizes are known, as in a published table: the pooled two-proportion z test.

    Where both answered the same questions, a paired test would see more; it needs the answers. The p-value is two-sided.
    Example: unpaired_test(0.410, 200, 0.145, 200)["z"] -> 5.92
    """
    both = (p1 * n1 + p2 * n2) / (n1 + n2)
    spread = math.sqrt(both * (1 - both) * (1 / n1 + 1 / n2))
    z = (p1 - p2) / spread if spread else 0.0
    return {"difference": p1 - p2, "z": z, "p_value": math.erfc(abs(z) / math.sqrt(2))}


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
