import numpy as np
import pytest

from utils import paper
from utils.report.frame import as_frame
from utils.report.riddle import rank_effect, riddle, variants

SAMPLED = "sampled, temperature 0.6, top-p 0.9"
TWO, MOST = (paper.table_3_grid()[place] for place in (1, 5))


def of(rows, metric):
    return [row for row in rows.to_dict("records") if row["metric"] == metric]


def test_the_papers_own_difference_comes_first_and_has_no_interval(frame):
    rows = rank_effect(frame)
    assert rows["condition"].tolist() == ["paper, Llama 3.2 3B"] * 2 + ["as in Table 3"] * 4
    assert rows["metric"].tolist() == ["exact match", "token F1"] * 2 + ["exact match, ro", "contains"]
    assert rows.loc[0, ["rank 2", "rank 32", "difference"]].tolist() == pytest.approx([0.410, 0.145, -0.265])
    assert rows.loc[1, "difference"] == pytest.approx(0.428 - 0.553)
    assert rows.loc[:1, ["low", "high", "runs"]].isna().all(axis=None)


def test_a_condition_is_what_both_ranks_were_run_in(record):
    other = [record(TWO, 1, loss_on="text"), record(MOST, 2, loss_on="text")]
    second = [record(TWO, 6), record(MOST, 0)]
    for run in second:
        run["data"] = run["data"] | {"fingerprint": "second", "test_name": "more"}
    draws = [record(TWO, right, temperature=0.6, top_p=0.9, draw=draw) for draw, right in enumerate((1, 3))]
    draws += [record(MOST, right, temperature=0.6, top_p=0.9, draw=draw) for draw, right in enumerate((4, 4, 0))]
    table_3 = [record(), *(record(fields, 3) for fields in paper.table_3_grid()[:5]), record(MOST, 5)]
    rows = rank_effect(as_frame([*second, *other, *table_3, *draws, record(TWO, 6, epochs=5)]))
    found = {row["condition"]: row for row in of(rows, "exact match")}
    assert list(found)[:2] == ["paper, Llama 3.2 3B", "as in Table 3"]
    assert set(found) - set(list(found)[:2]) == {"tested on more", "loss on text, not answer", SAMPLED}
    assert found["as in Table 3"]["difference"] == pytest.approx(2 / 6)
    assert found["tested on more"]["difference"] == -1
    assert found["loss on text, not answer"]["difference"] == pytest.approx(1 / 6)
    sampled = found[SAMPLED]  # of the draws that both have
    assert (sampled["rank 2"], sampled["rank 32"], sampled["runs"]) == (
        pytest.approx(2 / 6),
        pytest.approx(4 / 6),
        "seed 0, 2 draws",
    )
    assert sampled["low"] <= 2 / 6 <= sampled["high"]
    assert len(of(rows, "contains")) == 1


def test_form_is_taken_out_by_ro(record):
    runs = [record(), record(TWO, 6), record(MOST, 0)]
    for prediction in runs[2]["predictions"]:
        prediction["answer"] = "Da."
    rows = rank_effect(as_frame(runs)).set_index("metric").loc[lambda t: t["condition"] == "as in Table 3"]
    assert rows["difference"].to_dict() == {"exact match": -1, "token F1": -1, "exact match, ro": 0, "contains": 0}


def test_the_figure_has_a_mark_for_every_difference(record):
    runs = [record(), record(TWO, 2), record(MOST, 4), record(TWO, 1, epochs=1), record(MOST, 5, epochs=1)]
    axis = riddle(as_frame(runs)).axes[0]
    marks = sorted(float(np.ravel(box.lines[0].get_xdata())[0]) for box in axis.containers)
    assert marks == pytest.approx(sorted([-0.265, -0.125, 2 / 6, 2 / 6, 4 / 6, 4 / 6]))
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["paper, Llama 3.2 3B\nn = 200", "as in Table 3\nn = 6, seed 0", "epochs 1, not 3\nn = 6, seed 0"]


def test_draws_of_several_seeds_are_paired_by_both(record):
    drawn = {"temperature": 0.6, "top_p": 0.9}
    two = [record(TWO, 3, seed=seed, draw=draw, **drawn) for seed in (0, 1) for draw in (0, 1)]
    most = [record(MOST, right, seed=0, draw=draw, **drawn) for draw, right in enumerate((6, 3))]
    greedy = [record(), *(record(fields) for fields in paper.table_3_grid())]
    found = of(rank_effect(as_frame([*greedy, *two, *most])), "exact match")[-1]
    assert (found["condition"], found["runs"], found["difference"]) == (
        SAMPLED,
        "seed 0, 2 draws",
        pytest.approx(1.5 / 6),
    )


def test_where_only_one_of_table_3s_seeds_was_run_otherwise_it_is_shown_for_itself(record):
    greedy = [record(), *(record(fields, 2) for fields in paper.table_3_grid())]
    greedy += [record(TWO, 4, seed=1), record(MOST, 1, seed=1)]
    text = [record(TWO, 1, loss_on="text"), record(MOST, 2, loss_on="text")]
    found = {row["condition"]: row for row in of(rank_effect(as_frame([*greedy, *text])), "exact match")}
    assert list(found)[1:] == ["as in Table 3", "as in Table 3, seed 0", "loss on text, not answer"]
    assert [row["runs"] for row in found.values()][1:] == ["seeds 0, 1", "seed 0", "seed 0"]
    assert found["as in Table 3"]["difference"] == pytest.approx((0 - 3) / 12)  # of seed 0 none, of seed 1 three of six
    assert found["as in Table 3, seed 0"]["difference"] == 0
    both = variants(as_frame([*greedy, *text])).set_index(["run", "condition"])["EM"]
    assert both["r 2 q,v 1e-4", "as in Table 3"] == pytest.approx(3 / 6)
    assert both["r 2 q,v 1e-4", "as in Table 3, seed 0"] == pytest.approx(2 / 6)
    assert ("r 4 q,v 1e-4", "as in Table 3, seed 0") not in both


def test_rows_of_another_number_are_no_other_test_set(record):
    fewer = [record(TWO, 2, n=4), record(MOST, 3, n=4)]
    for run in fewer:
        run["data"] = run["data"] | {"fingerprint": "fewer"}
    assert set(rank_effect(as_frame([record(), record(TWO), record(MOST), *fewer]))["condition"].iloc[6:]) == {
        "4 test rows"
    }


def test_a_revision_that_is_not_known_is_the_same_as_one_that_is_not_known(record):
    runs = [record(), record(TWO), record(MOST), record(TWO, epochs=1), record(MOST, epochs=1)]
    for run in runs:
        run["model"] = run["model"] | {"revision": None}
    other = record(model={"id": "another"})
    assert set(rank_effect(as_frame([*runs, other]))["condition"].iloc[6:]) == {"epochs 1, not 3"}


def test_variants_are_named_by_what_differs(record):
    runs = [record(), record(TWO, 3), record(MOST, 2), *(record(fields) for fields in paper.table_3_grid()[2:5])]
    runs += [
        record(shots=3),
        record(TWO, 1, prompt_language="ro"),
        record(TWO, 5, batch_size=8),
        record(TWO, 6, epochs=5),
    ]
    rows = variants(as_frame(runs)).set_index(["run", "condition"])["EM"]
    assert rows.to_dict() == pytest.approx({
        ("base", "as in Table 3"): 0.5, ("r 2 q,v 1e-4", "as in Table 3"): 0.5, ("r 32 q,v 1e-4", "as in Table 3"): 2 / 6,
        ("base, 3 solved", "solved examples 3, not 0"): 0.5, ("r 2 q,v 1e-4", "prompt language ro, not en"): 1 / 6,
        ("r 2 q,v 1e-4", "batch size 8, not 4"): 5 / 6, ("r 2 q,v 1e-4", "epochs 5, not 3"): 1.0,
    })  # fmt: skip
