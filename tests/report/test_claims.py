import pytest

from utils import paper
from utils.report.claims import comparisons, published_claims, published_scores, verdicts
from utils.report.frame import as_frame

N = 60


def row_of(table, begins):
    return table[table["claim"].str.startswith(begins)].iloc[0]


def verdict(records, begins):
    return row_of(verdicts(as_frame(records)), begins)["verdict"]


def test_every_claim_has_a_row_in_the_papers_words(seeds_frame):
    table = verdicts(seeds_frame)
    assert table["claim"].tolist() == [claim["claim"] for claim in paper.CLAIMS]
    assert table["the paper's words"].isna().tolist() == [False] * 7 + [True]  # the last question is ours
    assert table["compared"].notna().all()
    assert table.drop(index=6)[["difference", "95 %", "p (Holm)", "could show"]].notna().all(axis=None)
    assert "Holm's method for 41 comparisons" in table.attrs["caption"]


def test_with_six_questions_nothing_can_be_told_apart_and_the_row_says_what_could(frame):
    table = verdicts(frame)
    assert table["verdict"].value_counts().to_dict() == {"not distinguishable at this n": 7, "supported": 1}
    assert row_of(table, "The share")["verdict"] == "supported"  # counted, whatever was run
    assert row_of(table, "q alone")["could show"] == 1.0  # six of six, all to one side


def test_an_unclear_verdict_says_the_smallest_difference(grid):
    table = verdicts(as_frame(grid(lambda c: 20 if c.rank == 2 else 24, N)))
    row = row_of(table, "Rank 2 is")
    assert (row["verdict"], row["difference"]) == ("not distinguishable at this n", pytest.approx(-4 / N))
    assert row["could show"] == pytest.approx(6 / N)  # 4 questions differ; 6 to one side are the fewest that show


@pytest.mark.parametrize(
    ("begins", "right"),
    [
        ("Every", lambda c: 10 if c.rank is None else 40),
        ("All", lambda c: 10 if c.rank is None else 40),
        ("Rank 2 is", lambda c: 50 if c.rank == 2 else 10),
        ("q alone", lambda c: 10 if c.target_modules == ("q",) else 50),
        ("More modules", lambda c: {1: 5, 2: 25, 4: 50}[len(c.target_modules)]),
        ("Ours", lambda c: 50 if c.learning_rate == 1e-4 else 10),
    ],
)
def test_each_claim_is_tested_by_its_own_comparisons(grid, begins, right):
    assert verdict(grid(right, N), begins) == "supported"
    assert verdict(grid(lambda c: N - right(c), N), begins) == "contradicted"


def test_one_comparison_against_a_claim_decides(grid):
    def right(c):
        return 10 if c.rank is None else 0 if c.target_modules == ("q",) else 40

    row = row_of(verdicts(as_frame(grid(right, N))), "All")
    assert (row["verdict"], row["difference"]) == ("contradicted", pytest.approx(-10 / N))
    assert row["compared"].endswith("− base (the least of 12)")


def test_trainable_shares_are_counted_without_a_model(grid, monkeypatch):
    claim = next(claim for claim in paper.CLAIMS if "trainable_percent" in claim)
    wrong = [row | {"trainable_percent": 0.07} if row["rank"] == 8 else row for row in claim["trainable_percent"]]
    monkeypatch.setitem(claim, "trainable_percent", wrong)
    assert verdict(grid(), "The share") == "contradicted"


def test_a_claim_whose_runs_are_missing_is_not_run(frame):
    row = row_of(verdicts(frame[frame["rank"] != 32]), "Rank 2 is")
    assert (row["verdict"], row["compared"]) == ("not run", "8 of 10 comparisons have been run")
    assert set(verdicts(frame.iloc[:0])["verdict"]) == {"not run", "supported"}


def test_of_a_base_with_more_seeds_than_the_adapter_those_are_compared_that_both_have(record):
    solved = {"shots": 3}
    runs = [record(None, right, seed=seed, **solved) for seed, right in enumerate((2, 2, 6))]
    runs += [record(paper.WINNER, 5, seed=seed, **solved) for seed in (0, 1)]
    (row,) = comparisons(as_frame(runs)).to_dict("records")
    assert (row["difference"], row["seeds"]) == (pytest.approx(3 / 6), 2)  # not of the third seed's 6


def test_comparisons_are_paired_and_corrected_within_the_table(grid):
    table = comparisons(as_frame(grid(lambda c: 16 if c.rank == 32 else 10, N)))
    assert table["against"].value_counts().to_dict() == {"base": 11, "winner": 10}
    row = table[table["configuration"].str.startswith("r 32")].iloc[0]
    assert (row["difference"], row["p_value"]) == (
        pytest.approx(0.1),
        pytest.approx(2 * 0.5**6),
    )  # six gained, none lost
    assert row["p (Holm)"] == pytest.approx(21 * 2 * 0.5**6)  # the smallest of 21, with the one against the winner
    assert not row["found"]  # although its interval leaves out 0
    assert row["low"] > 0


def test_published_scores_have_wilsons_interval_and_the_gap_grows_with_rank():
    table = published_scores()
    assert len(table) == 13  # base, six ranks, twice three module sets
    three = table[table["table"] == 3].set_index("configuration")
    assert three.loc["r 1 q,v 1e-4", "95 %"] == "0.33–0.46"
    assert three["gap"].round(3).tolist() == [0.199, 0.119, 0.143, 0.130, 0.189, 0.200, 0.283]
    others = table[table["configuration"] != "base"]["F1"]
    assert (others.min(), sorted(others)[1], others.max()) == (0.305, 0.419, 0.553)  # all adapters but one


def test_published_claims_are_tested_without_pairs():
    table = published_claims()
    assert len(table) == 12 + 5 + 2 + 2  # against base, rank 2, q alone, and the steps to q, k, v, o
    z = table.set_index(["compared", "table"])["z"].round(1)
    assert z["r 2 q,v 1e-4 − r 32 q,v 1e-4", 3] == 5.9
    assert z["r 32 q,v 1e-4 − base", 3] == 1.4
    assert z["r 2 q 1e-4 − base", 6] == 0.3
    assert z["r 2 q,v 1e-4 − base", 6] == 5.9  # .345 and .100
    told = table.set_index(["compared", "table"])["verdict"]
    assert told["r 2 q,v 1e-4 − r 32 q,v 1e-4", 3] == "supported"
    assert told["r 32 q,v 1e-4 − base", 3] == told["r 2 q 1e-4 − base", 6] == "not distinguishable at this n"
    assert (table["verdict"] == "supported").sum() == 10  # at p < .05 after Holm's correction for 21
    assert "for 21 comparisons" in table.attrs["caption"]
    claims = table.assign(claim=table["claim"].str.split("; ")).explode("claim")
    stand = claims.groupby("claim")["verdict"].agg(["size", lambda told: (told == "supported").sum()])
    assert dict(zip(stand.index, stand.to_numpy().tolist(), strict=True)) == {
        "All experiments of Tables 5 and 6 beat it too": [7, 4 - 1],
        "Every rank of Table 3 beats the base model": [7, 6],
        "More modules help exact match and F1": [4, 1],
        "Rank 2 beats the greater ranks 4 to 32": [4, 2],
        "Rank 2 is the best rank": [5, 2],
        "q alone is insufficient": [2, 1],
    }
