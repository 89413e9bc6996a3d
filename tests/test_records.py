import json

import pytest

from utils.records import SCHEMA_VERSION, as_frame, comparable, load_records, read_record, save_record


def test_a_record_comes_back_as_it_was_saved(records, tmp_path):
    path = save_record(records[2], tmp_path)
    assert read_record(path) == {"schema_version": SCHEMA_VERSION, **records[2]}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_record_that_cannot_be_written_leaves_the_old_one(records, tmp_path):
    path = save_record(records[2], tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        save_record({**records[2], "metrics": {"em_strict": float("nan")}}, tmp_path)
    assert read_record(path)["metrics"] == records[2]["metrics"]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_frame_has_a_row_per_run_with_settings_scores_and_sizes(records, tmp_path):
    for record in records:
        save_record(record, tmp_path)
    frame = load_records(tmp_path)
    assert len(frame) == 12  # base and 11 configurations: the one that tables 3 and 6 share is there once
    row = frame[frame["rank"] == 32].iloc[0]
    assert row["target_modules"] == ("q", "v")
    # q: 64 + 64, v: 64 + 32, rank 32, two layers
    assert row["trainable"] == 2 * 32 * (128 + 96)
    assert row["trainable_percent"] == pytest.approx(100 * row["trainable"] / row["total"])
    assert frame["rank"].isna().sum() == 1


def test_one_table_never_mixes_runs_that_differ_in_more_than_the_sweep(records):
    other_epochs = json.loads(json.dumps(records[2]))
    other_epochs["config"]["epochs"] = 9
    other_epochs["run_id"] = "other"
    other_data = json.loads(json.dumps(records[3]))
    other_data["data"]["fingerprint"] = "another"
    frame = comparable(as_frame([*records, other_epochs, other_data]))
    assert len(frame) == 12
    assert set(frame["epochs"]) == {3}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 99}'])
def test_an_unreadable_record_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json.*the run is done again"):
        load_records(tmp_path)


def test_an_empty_folder_says_what_fills_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="03_rank_sweep"):
        load_records(tmp_path)
