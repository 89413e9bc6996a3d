import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils import stats
from utils.stats import bootstrap_ci, holm, mean_interval, paired_test, smallest_difference, unpaired_test, wilson


def test_interval_of_an_exact_match_score():
    low, high = bootstrap_ci([1.0] * 82 + [0.0] * 118)  # EM 0.410 of 200, as in the paper's Table 3
    half_width = 1.96 * np.sqrt(0.41 * 0.59 / 200)  # 0.068, the normal approximation
    assert low == pytest.approx(0.41 - half_width, abs=0.006)
    assert high == pytest.approx(0.41 + half_width, abs=0.006)


def test_seeds_are_pooled_by_question_and_do_not_count_as_more_questions():
    once = np.array([1.0] * 20 + [0.0] * 20)
    assert bootstrap_ci(np.stack([once] * 5, axis=1)) == pytest.approx(bootstrap_ci(once))


def test_seeds_that_differ_widen_the_interval():
    scores = np.repeat([[1.0, 0.5, 0.0]], 50, axis=0)  # every question alike: all that varies is the seed
    low, high = bootstrap_ci(scores)
    # Of 27 ways to draw 3 seeds with replacement, one is all 0.0 (3.7 %, above 2.5 %), and one all 1.0.
    assert (low, high) == pytest.approx((0.0, 1.0))


def test_wilson_by_hand():
    # share 0: middle and half are both z²/2n = 3.841/78 = 0.04925, so high is 0.0985 / (1 + 3.841/39) = 0.0897
    assert wilson(0.0, 39) == (0.0, pytest.approx(0.0897, abs=1e-4))
    assert wilson(1.0, 39) == (pytest.approx(1 - 0.0897, abs=1e-4), 1.0)
    assert wilson(0.41, 200) == pytest.approx((0.3442, 0.4792), abs=1e-4)
    with pytest.raises(ValueError, match=r"share of 1\.5 of 3"):
        wilson(1.5, 3)


@pytest.mark.parametrize("n", [39, 200])
@pytest.mark.parametrize("p", [0.02, 0.04, 0.1, 0.5, 0.9, 0.95])
def test_an_interval_of_one_seed_holds_the_true_share_in_93_of_100_draws_or_more(n, p):
    inside = 0.0
    for right in range(n + 1):  # every outcome with its probability: nothing is drawn
        low, high = mean_interval([1.0] * right + [0.0] * (n - right))
        inside += math.comb(n, right) * p**right * (1 - p) ** (n - right) * (low <= p <= high)
    assert inside >= 0.93


def test_no_interval_is_a_point():
    assert mean_interval([0.0] * 39) == wilson(0.0, 39)
    assert mean_interval(np.zeros((39, 3))) == wilson(0.0, 39)  # three seeds are not three times as many questions
    assert mean_interval([0.5] * 39) == wilson(0.5, 39)  # F1 that does not vary
    once = np.zeros((39, 3))
    once[0, 0] = 1.0
    assert mean_interval(once)[1] > 0
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap_ci([0.3])


def test_f1_and_several_seeds_take_the_bootstrap():
    scores = [0.5] * 82 + [0.0] * 118
    assert mean_interval(scores) == bootstrap_ci(scores) == pytest.approx((0.17, 0.24), abs=0.006)
    assert mean_interval([[1.0, 0.0]] * 20 + [[1.0, 1.0]] * 20) == bootstrap_ci([[1.0, 0.0]] * 20 + [[1.0, 1.0]] * 20)


@pytest.mark.parametrize(
    ("n", "discordant", "smallest"),
    [
        (200, 0.03, 0.03),  # 6 to 0: p = 2/64
        (200, 0.0, 0.03),  # fewer than 6 disagreements never reach .05
        (100, 0.07, 0.07),  # 7 to 0; 6 to 1 has p = 16/128
        (200, 0.045, 0.035),  # 8 to 1 of 9: p = 20/512 = .039, so 7 questions
        (200, 0.25, 0.08),  # 33 to 17 of 50: p = .033; 32 to 18 has .065
        (5, 1.0, math.inf),
    ],
)
def test_the_smallest_difference_that_could_have_been_shown(n, discordant, smallest):
    assert smallest_difference(n, discordant) == pytest.approx(smallest)


def test_what_could_be_shown_goes_with_every_comparison():
    assert paired_test([1] * 30 + [0] * 30, [0] * 10 + [1] * 40 + [0] * 10)["could_show"] == smallest_difference(
        60, 0.5
    )
    f1 = paired_test([0.5, 0.7, 0.9, 0.6, 0.8], [0.4, 0.5, 0.6, 0.2, 0.3])
    assert f1["could_show"] == pytest.approx((f1["high"] - f1["low"]) / 2)
    same = paired_test([1.0] * 39, [1.0] * 39)
    assert (same["low"], same["high"]) == (-wilson(0.0, 39)[1], wilson(0.0, 39)[1])


def test_published_shares_take_the_two_proportion_test():
    result = unpaired_test(0.410, 200, 0.145, 200)  # Table 3, rank 2 against rank 32
    assert result["z"] == pytest.approx(0.265 / math.sqrt(0.2775 * 0.7225 * 2 / 200))  # 5.92
    assert result["p_value"] == pytest.approx(3.3e-9, rel=0.02)
    assert unpaired_test(0.145, 200, 0.100, 200)["z"] == pytest.approx(1.37, abs=0.005)
    assert unpaired_test(0.110, 200, 0.100, 200)["z"] == pytest.approx(0.33, abs=0.005)
    assert unpaired_test(0.0, 200, 0.0, 200)["p_value"] == 1.0


def test_mcnemar_looks_only_at_the_questions_where_two_runs_disagree():
    a = [1] * 6 + [1] * 50 + [0] * 44
    b = [0] * 6 + [1] * 50 + [0] * 44
    result = paired_test(a, b)
    assert result["p_value"] == pytest.approx(2 * 0.5**6)  # six wins of six, two-sided
    assert result["difference"] == pytest.approx(0.06)
    assert result["low"] <= 0.06 <= result["high"]
    assert result["n"] == 100


def test_no_difference_has_p_value_one():
    assert paired_test([0.2, 0.4, 0.9], [0.2, 0.4, 0.9])["p_value"] == 1.0


def test_f1_takes_the_permutation_test():
    result = paired_test([0.5, 0.7, 0.9, 0.6, 0.8], [0.4, 0.5, 0.6, 0.2, 0.3])  # all five differences above zero
    assert result["p_value"] == pytest.approx(2 / 2**5)  # 2 of 32 sign patterns are as extreme


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        paired_test([1, 0], [1, 0, 1])


def test_one_seed_is_set_against_each_of_the_others():
    base = [0, 0, 0, 0, 1, 1]
    adapter = np.array([[1, 1], [1, 0], [0, 0], [0, 0], [1, 1], [1, 1]])
    result = paired_test(adapter, base)
    assert result["difference"] == pytest.approx((1 + 0.5) / 6)
    assert (result["n"], result["seeds"]) == (6, 2)
    assert result["p_value"] == pytest.approx(2 / 4)  # two questions differ: 2 of 4 sign patterns are as extreme


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 * 0.01, then 2 * 0.03, then not below it
    assert holm([0.02, 0.9, 0.8]) == pytest.approx([0.06, 1.0, 1.0])  # 2 * 0.8 is cut at 1
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    assert [q for _, q in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


# What the intervals and p-values promise, checked by drawing data of which the truth is known, 1,000 times.


@pytest.mark.long
def test_the_interval_holds_the_true_mean_in_95_of_100_draws():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        low, high = bootstrap_ci(rng.random(200) < 0.4)  # 200 questions, true exact match 0.4
        inside += low - 1e-9 <= 0.4 <= high + 1e-9
    assert 930 <= inside <= 970


@pytest.mark.long
@pytest.mark.parametrize("metric", ["exact match", "token F1"])
def test_no_difference_is_called_one_in_at_most_6_of_100_draws(metric, monkeypatch):
    monkeypatch.setattr(stats, "bootstrap_ci", lambda *_, **__: (0.0, 0.0))  # not looked at here, and takes its time
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(1000):
        easy = rng.random(20)  # how easy each question is, for both alike
        a, b = rng.random((2, 20)) < easy
        if metric == "token F1":
            a, b = a * rng.random(20), b * rng.random(20)
        found += paired_test(a, b)["p_value"] < 0.05
    assert found <= 60
