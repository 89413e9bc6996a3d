import json

import pytest

from utils import paper
from utils.records import SCHEMA_VERSION
from utils.report.frame import as_frame, by_seed, comparable, find, load_frame, measured, pooled, run_title

WINNER = paper.WINNER


def test_pooling_averages_a_configurations_seeds(record):
    runs = [record(WINNER, right, seed=seed) for seed, right in enumerate((6, 3, 0))]
    pool = pooled(as_frame([record(), *runs]))
    assert pool["seeds"].tolist() == [(0,), (0, 1, 2)]
    assert pool.loc[1, "em_strict"] == 0.5  # (1 + .5 + 0) / 3
    assert [r["config"]["seed"] for r in pool.loc[1, "records"]] == [0, 1, 2]


@pytest.mark.parametrize("count", [7, 15])  # the mean of so many 1e-4 is another number
def test_settings_are_never_averaged(record, count):
    pool = pooled(as_frame([record(WINNER, seed=seed) for seed in range(count)]))
    assert find(pool, WINNER)["seeds"] == tuple(range(count))


def test_a_configuration_is_found_by_any_of_its_fields(record):
    pool = pooled(as_frame([record(), record(shots=3), record(WINNER), record(WINNER, epochs=5)]))
    assert find(pool, None)["shots"] == 0
    assert find(pool, {"rank": None, "shots": 3})["run_id"].startswith("base-3shot")
    assert find(pool, WINNER)["epochs"] == 3
    assert find(pool, WINNER | {"epochs": 5, "target_modules": ("v", "q")})["epochs"] == 5
    assert find(pool, WINNER | {"alpha": 1}) is None
    assert find(pool.iloc[:0], None) is None


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"environment": {"dtype": "float32"}}, "dtype float32, not bfloat16"),
        ({"environment": {"quantization": "nf4"}}, "quantization nf4, not none"),
        ({"model": {"id": "h"}}, "model id h, not g"),
        ({"model": {"revision": "2"}}, "revision 2, not 1"),
        ({"epochs": 5}, "epochs 5, not 3"),
        ({"data": {"fingerprint": "2", "test_name": "more"}}, "tested on more"),
        ({"data": {"fingerprint": "2", "test_name": "more", "test_rows": 4}}, "tested on more; 4 test rows"),
        ({"data": {"fingerprint": "2", "train_rows": 78}}, "78 training rows"),
        ({"data": {"fingerprint": "2", "test_rows": 7}}, "7 test rows"),
        ({"data": {"fingerprint": "2"}}, "rows 2"),
    ],
)
def test_work_of_another_kind_is_never_mixed_and_is_named(record, other, told):
    runs = [record(), record(WINNER, 3), record(WINNER, 3, seed=1), record(WINNER, 6, seed=2, **other)]
    frame = as_frame(runs)
    assert sorted(pooled(frame)["seeds"]) == [(0,), (0, 1), (2,)]
    kept = comparable(frame)
    assert kept["seed"].tolist() == [0, 0, 1]
    assert kept.attrs["complaints"] == [f"r 2 q,v 1e-4 is left out of the comparison: {told}."]


def test_a_base_model_of_other_work_is_left_out_too(record):
    kept = comparable(
        as_frame([record(environment={"dtype": "float32"}), record(epochs=3), record(WINNER), record(shots=3)])
    )
    assert kept["dtype"].tolist() == ["bfloat16"] * 2
    assert len(kept.attrs["complaints"]) == 2


def test_captions_name_the_number_format(record):
    pool = pooled(as_frame([record(WINNER, environment={"quantization": "nf4"})]))
    assert "gemma-3-270m in bfloat16 (nf4), profile smoke, bundled (12 train, 6 test rows), strict norm" in measured(
        pool
    )
    assert run_title(pool) == "gemma-3-270m in bfloat16 (nf4), profile smoke, bundled (12 train, 6 test rows)"
    assert measured(pool.iloc[:0]) == "Measured: nothing yet."


def test_captions_count_seeds(frame, seeds_frame):
    assert "n = 6 questions, seed 0; 95 % intervals over questions alone" in measured(pooled(frame))
    assert "means over 3 seeds (0, 1, 2); 95 % intervals over questions and these seeds." in measured(
        pooled(seeds_frame)
    )
    assert "means over 2 to 3 seeds" in measured(pooled(seeds_frame.iloc[:-1]))
    assert run_title(pooled(seeds_frame)).endswith(", 3 seeds")
    assert run_title(pooled(seeds_frame.iloc[:-1])).endswith(", 2 to 3 seeds")  # whichever run is the last
    assert run_title(pooled(seeds_frame), first=True).endswith(", seed 0")


def test_captions_name_another_test_set_and_several_kinds_of_machine(record):
    elsewhere = {"data": {"test_name": "bundled-more"}}
    kinds = [{"environment": {"dtype_reason": f"this CPU has {kind}"}} for kind in ("amx_bf16", "avx512_bf16")]
    pool = pooled(as_frame([record(WINNER, **elsewhere, **kinds[0]), record(WINNER, seed=1, **elsewhere, **kinds[1])]))
    assert "bundled (12 train, 6 test rows of bundled-more)" in run_title(pool)
    told = "Not all on one kind of machine: this CPU has amx_bf16; this CPU has avx512_bf16."
    assert measured(pool).endswith(told)
    assert "machine" not in measured(pooled(as_frame([record(WINNER, **kinds[0])])))


def test_old_records_and_unfinished_ones(record):
    old = record(WINNER)
    del old["environment"]["quantization"], old["memory"], old["training"]
    for p in old["predictions"]:
        p["reference"] = p.pop("references")[0]
    old["config"]["group_by_length"] = True  # retired
    stopped, broken = record(WINNER, seed=1) | {"status": "stopped"}, {"run_id": "x"}
    frame = as_frame([old, stopped, broken, old])
    assert len(frame) == 1
    assert frame.loc[0, "quantization"] == "none"
    assert by_seed([old], "em").tolist() == [[1], [1], [1], [0], [0], [0]]
    assert [c.split(" is left out")[0] for c in frame.attrs["complaints"]] == [stopped["run_id"], "x"]
    with pytest.raises(ValueError, match="None of the 1 runs can be shown: .* its status is stopped"):
        as_frame([stopped])


def test_metrics_that_came_later_are_columns_where_they_are(record):
    one, other = record(WINNER), record()
    one["metrics"]["contains"] = 0.5
    del other["metrics"]["contains"]
    frame = as_frame([one, other])
    assert frame.loc[0, ["em_ro", "contains"]].tolist() == [0.5, 0.5]
    assert frame["contains"].isna().tolist() == [False, True]


def test_a_folder_of_records(tmp_path, record):
    with pytest.raises(FileNotFoundError, match="There are no records in .* run 03_rank_sweep"):
        load_frame(tmp_path)
    (tmp_path / "b.json").write_text("{", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"no records that can be read \(b.json .*\) in"):
        load_frame(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, **record(WINNER)}), encoding="utf-8")
    frame = load_frame(tmp_path)
    assert frame["em_strict"].tolist() == [0.5]
    assert frame.attrs["complaints"][0].startswith("b.json")


def test_of_two_sets_as_large_the_one_that_was_trained_for_it_is_compared(record):
    own, again = [record(), record(WINNER)], [record(right=1), record(WINNER, 1)]
    for run in again:  # the same adapters, put to other questions
        run["data"], run["training"] = run["data"] | {"fingerprint": "second"}, []
    for both in ([*own, *again], [*again, *own]):
        assert comparable(as_frame(both))["em_strict"].tolist() == [0.5, 0.5]


def test_of_two_sets_as_large_the_one_with_more_questions_is_compared(record):
    own, fewer = [record(), record(WINNER)], [record(n=4), record(WINNER, n=4)]
    for run in fewer:
        run["data"] = run["data"] | {"fingerprint": "fewer"}
    for both in ([*own, *fewer], [*fewer, *own]):
        assert comparable(as_frame(both))["n"].tolist() == [6, 6]
