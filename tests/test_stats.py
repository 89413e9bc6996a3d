import numpy as np
import pytest

from utils.stats import bootstrap_ci, paired_test


def test_interval_of_an_exact_match_score():
    low, high = bootstrap_ci([1.0] * 82 + [0.0] * 118)  # EM 0.410 of 200, as in the paper's Table 3
    half_width = 1.96 * np.sqrt(0.41 * 0.59 / 200)  # 0.068, the normal approximation
    assert low == pytest.approx(0.41 - half_width, abs=0.006)
    assert high == pytest.approx(0.41 + half_width, abs=0.006)


def test_seeds_are_pooled_by_question_and_do_not_count_as_more_questions():
    once = np.array([1.0] * 20 + [0.0] * 20)
    assert bootstrap_ci(np.stack([once] * 5, axis=1)) == bootstrap_ci(once)


def test_scores_that_do_not_vary_have_no_width():
    assert bootstrap_ci([1.0, 1.0, 1.0]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap_ci([1.0])


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
