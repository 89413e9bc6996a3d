import json

import pytest

from utils import paper
from utils.claims import comparisons, is_found, verdicts
from utils.records import as_frame

N = 60
CLAIM = {claim["claim"].split()[0]: claim["claim"] for claim in paper.CLAIMS}  # by first word, they all differ


def told(records, right, **changes):
    """The records with N questions each, of which the first `right(config)` are answered as expected."""
    frame = []
    for record in records:
        copy = json.loads(json.dumps(record))
        count = right(copy["config"])
        copy["predictions"] = [
            {"question": str(i), "answer": "da" if i < count else "nu", "reference": "da", "references": ["da"]}
            for i in range(N)
        ]
        frame.append(copy | changes)
    return as_frame(frame)


def verdict(frame, first_word):
    return verdicts(frame).set_index("claim").loc[CLAIM[first_word], "verdict"]


def test_every_claim_has_a_row_with_what_was_compared(seeds_frame):
    table = verdicts(seeds_frame)
    assert table["claim"].tolist() == [claim["claim"] for claim in paper.CLAIMS]
    assert table["compared"].notna().all()
    assert table.iloc[:-1][["difference", "95 %", "p (Holm)", "n", "seeds"]].notna().all(axis=None)
    assert set(table["n"].dropna()) == {6}
    assert set(table["seeds"].dropna()) == {3}
    assert "means over 3 seeds" in table.attrs["caption"]
    assert "Holm's method for 26 comparisons" in table.attrs["caption"]


def test_with_six_questions_nothing_can_be_told_apart(frame):
    found = dict(zip(verdicts(frame)["claim"], verdicts(frame)["verdict"], strict=True))
    assert found.pop(CLAIM["The"]) == "supported"  # counted from the shape of Llama 3.2 3B, whatever was run
    assert set(found.values()) == {"not distinguishable at this n"}


def test_a_verdict_flips_when_the_records_say_the_opposite(records):
    def better(config):
        return 10 if config["rank"] is None else 40

    assert verdict(told(records, better), "Every") == "supported"
    assert verdict(told(records, lambda c: 50 - better(c)), "Every") == "contradicted"
    assert verdict(told(records, lambda c: 20), "Every") == "not distinguishable at this n"
    one_fails = told(records, lambda c: 0 if c["target_modules"] == ["q"] else better(c))
    row = verdicts(one_fails).iloc[0]
    assert (row["verdict"], row["difference"]) == ("contradicted", pytest.approx(-10 / 60))
    assert row["compared"] == "r 2 q 3e-04 − base (the least of 11)"
    assert row["p (Holm)"] < 0.05


@pytest.mark.parametrize(
    ("first_word", "right"),
    [
        ("Rank", lambda c: 50 if c["rank"] == 2 else 10),
        ("Higher", lambda c: 50 if c["rank"] in (1, 2, 4) else 10),
        ("q", lambda c: 10 if c["target_modules"] == ["q"] else 50),
        ("Adding", lambda c: {1: 5, 2: 25, 4: 50}[len(c["target_modules"])]),
        ("Learning", lambda c: 50 if c["learning_rate"] == 1e-4 else 10),
    ],
)
def test_each_claim_is_tested_by_its_own_comparisons(records, first_word, right):
    assert verdict(told(records, right), first_word) == "supported"
    assert verdict(told(records, lambda c: 60 - right(c)), first_word) == "contradicted"


def test_trainable_shares_are_counted_from_the_papers_architecture(records, monkeypatch):
    frame = told(records, lambda c: 0)
    assert verdict(frame, "The") == "supported"
    claim = next(claim for claim in paper.CLAIMS if "trainable_percent" in claim)
    wrong = [row | {"trainable_percent": 0.07} if row["rank"] == 8 else row for row in claim["trainable_percent"]]
    monkeypatch.setitem(claim, "trainable_percent", wrong)
    assert verdict(frame, "The") == "contradicted"


def test_a_claim_whose_runs_are_missing_is_not_run(records):
    frame = told(records, lambda c: 20)
    row = verdicts(frame[frame["rank"] != 32]).set_index("claim").loc[CLAIM["Rank"]]
    assert (row["verdict"], row["compared"]) == ("not run", "4 of 5 comparisons have been run")


def test_comparisons_are_paired_and_corrected_within_the_table(records):
    table = comparisons(told(records, lambda c: 10 if c["rank"] is None else 16 if c["rank"] == 32 else 10))
    assert table["against"].value_counts().to_dict() == {"base": 11, "winner": 10}
    row = table[table["configuration"].str.startswith("r 32")].iloc[0]
    assert row["difference"] == pytest.approx(0.1)
    assert row["p"] == pytest.approx(2 * 0.5**6)  # six questions gained, none lost
    assert row["p (Holm)"] == pytest.approx(21 * 2 * 0.5**6)  # the smallest of 21, with the one against the winner
    assert not is_found(row)  # although its interval leaves out 0
    assert row["low"] > 0


def test_f1_can_be_compared_too(frame):
    assert comparisons(frame, "f1").attrs["caption"].startswith("Token F1 of each configuration")


def test_what_cannot_both_be_true_is_listed():
    assert [c["about"].split()[0] for c in paper.CONTRADICTIONS] == ["exact", "exact", "3,221,924,864"]
    # in plus out of q and v of Llama 3.2 3B, 28 layers, rank 32: the trainable ones at rank 32
    assert 28 * 32 * ((3072 + 3072) + (3072 + 1024)) == 9_175_040
    assert round(100 * 9_175_040 / paper.TOTAL_PARAMETERS_RANK_32, 4) == paper.TABLE_3[-1]["trainable_percent"]
