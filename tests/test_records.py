import json

import pytest

from utils.records import (
    SCHEMA_VERSION,
    duration,
    identity_of,
    load_records,
    read_record,
    record_path,
    run_name,
    save_record,
)


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


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"null", b'"x"', b'{"schema_version": 99}', b'{"schema_version": 1}', b"\xff\xfe\x00binary",
     b'{"schema_version": 1, "run_id": "x", "config": 3}', b"[" * 100_000],
)  # fmt: skip
def test_a_foreign_file_is_named_and_counts_nowhere(records, tmp_path, content):
    save_record(records[2], tmp_path)
    (tmp_path / "bad.json").write_bytes(content)
    found, complaints = load_records(tmp_path)
    assert [r["run_id"] for r in found] == [records[2]["run_id"]]
    assert len(complaints) == 1
    assert complaints[0].startswith("bad.json ")
    assert "its run is" in complaints[0]


def test_the_identity_changes_with_whatever_makes_other_work(records):
    one = records[2]
    same = json.loads(json.dumps(one)) | {"metrics": {}, "timing": {}}
    assert identity_of(same) == identity_of(one)
    for place, value in (("data.fingerprint", "x"), ("model.revision", "x"), ("model.id", "x"), ("environment.dtype", "x"),
                         ("environment.quantization", "nf4"), ("config.epochs", 9)):  # fmt: skip
        other = json.loads(json.dumps(one))
        part, field = place.split(".")
        other[part][field] = value
        assert identity_of(other) != identity_of(one), place


@pytest.mark.parametrize("run_id", ["../up", "a/b", "/etc/x", "..", ".hidden"])
def test_a_run_id_never_climbs_out_of_its_folder(tmp_path, run_id):
    with pytest.raises(ValueError, match="not the name of a run"):
        record_path(tmp_path, run_id, "0123456789")


def test_a_full_disk_leaves_earlier_records_whole(records, tmp_path, monkeypatch):
    path = save_record(records[2], tmp_path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.records.os.fsync", full)
    with pytest.raises(OSError, match="cannot be written.*No space left.*earlier records are untouched"):
        save_record(records[3], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert read_record(path)["run_id"] == records[2]["run_id"]


def test_names_for_people():
    assert run_name({"rank": 2, "alpha": 8.0, "target_modules": ("q", "v"), "learning_rate": 1e-4}) == "r 2 q,v 1e-4"
    assert run_name({"rank": None}) == run_name({"rank": float("nan")}) == "base"
    assert run_name({"rank": None, "shots": 3}) == "base, 3 solved"
    text = {"rank": 4, "alpha": 8.0, "target_modules": ("q",), "learning_rate": 3e-4, "loss_on": "text"}
    assert run_name(text) == "r 4 q 3e-4, alpha 8, loss on text"
    assert [duration(s) for s in (4, 89, 200, 6000)] == ["4 s", "89 s", "3 min", "1.7 h"]
