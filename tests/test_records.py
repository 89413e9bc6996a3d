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
     b'{"schema_version": 1, "run_id": "x", "config": 3}', b"[" * 100_000, b'{"a":' * 100_000, b'{"schema_version": 0}',
     b'{"schema_version": [1]}', b"9" * 100_000, b"\x00" * 1000, b"<html><script>alert(1)</script></html>"],
)  # fmt: skip
def test_a_foreign_file_is_named_and_counts_nowhere(records, tmp_path, content):
    save_record(records[2], tmp_path)
    (tmp_path / "bad.json").write_bytes(content)
    found, complaints = load_records(tmp_path)
    assert [r["run_id"] for r in found] == [records[2]["run_id"]]
    assert len(complaints) == 1
    assert complaints[0].startswith("bad.json ")
    assert "its run is" in complaints[0]


@pytest.mark.parametrize(
    ("place", "value"),
    [("metrics.em_strict", "NaN"), ("metrics.em_strict", "Infinity"), ("metrics.f1_strict", "1e999"),
     ("metrics.n", "1" + "0" * 400), ("metrics.n", "1" + "0" * 40), ("metrics.n", '"6"'), ("metrics.em_ro", "null"),
     ("config.rank", '"two"'), ("config.rank", "[]"), ("config.alpha", '{"a": 1}'), ("config.target_modules", "[[1]]"),
     ("config", "{}"), ("training", '{"step": 1}'), ("training", '[{"step": 1}]'), ("training", '[{"step": 1, "loss": "x"}]'),
     ("predictions", "[]"), ("predictions", '[{"answer": 3}]'), ("metrics.n", "7"), ("metrics.em_strict", "7.0"),
     ("predictions", '[{"answer": "x"}]'), ("training", '[{"step": 1, "loss": 2.0}]'), ("predictions", '[{"answer": null, "references": [7]}]'),
     ("timing", "{}"), ("data", "[]"), ("data.name", "3"), ("data.train_rows", "null"), ("model", "null"), ("run_id", "7"),
     ("run_id", '"../../../up"'), ("status", '"$x$"'), ("status", "{}"), ("run_id", '"/etc/passwd"'), ("run_id", '".hidden"'), ("run_id", '"a/b"')],
)  # fmt: skip
def test_a_record_with_a_hostile_part_is_named_and_counts_nowhere(records, tmp_path, place, value):
    content = json.loads(json.dumps(read_record(save_record(records[2], tmp_path))))
    *parts, last = place.split(".")
    part = content
    for name in parts:
        part = part[name]
    part[last] = "HERE"
    (tmp_path / "bad.json").write_text(json.dumps(content).replace('"HERE"', value))
    found, complaints = load_records(tmp_path)
    assert found == [read_record(tmp_path / found_name(tmp_path))]
    assert len(complaints) == 1
    assert complaints[0].startswith("bad.json is no record that can be read (")
    assert len(complaints[0]) < 600


def found_name(folder):
    return next(path.name for path in folder.iterdir() if path.name != "bad.json")


@pytest.mark.parametrize("version", [0, 2, "1.0", None])
def test_another_schema_is_refused_with_a_sentence(records, tmp_path, version):
    path = save_record(records[2], tmp_path)
    path.write_text(json.dumps({**records[2], "schema_version": version}))
    assert load_records(tmp_path)[1] == [
        f"{path.name} is no record that can be read (ValueError: its schema version is {version!r}, this code reads version "
        f"{SCHEMA_VERSION}). Delete it or move it away; its run is then done again."
    ]


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

    monkeypatch.setattr("utils.disk.os.fsync", full)
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
