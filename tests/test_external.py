import dataclasses
import json

import pytest

from utils.data import load_qa
from utils.external import evaluate
from utils.records import as_frame, load_records


@pytest.fixture(scope="module")
def other(tmp_path_factory, data):
    """Two of the test rows as a SQuAD file, each with a second accepted answer."""
    articles = [
        {"title": "", "paragraphs": [{"context": row["text"], "qas": [
            {"question": row["question"], "answers": [{"text": row["answer"]}, {"text": "altfel"}]}
        ]}]}
        for row in data["test"].select(range(2))
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("other") / "other.json"
    path.write_text(json.dumps({"data": articles}))
    return load_qa("bundled", 12, test_source=str(path))


def test_a_saved_adapter_answers_other_rows_as_it_answered_its_own(records, other, environment):
    before = sorted((environment.runs / "records").iterdir())
    said, failed = [], {"run_id": "x", "config": records[1]["config"], "status": "failed"}
    found = evaluate([*records[:3], failed], other, environment, say=said.append)
    for record, external in zip(records, found, strict=False):
        assert [p["generation"] for p in external["predictions"]] == [
            p["generation"] for p in record["predictions"][:2]
        ]
        assert external["predictions"][0]["references"] == [record["predictions"][0]["reference"], "altfel"]
        assert external["trained_on"] == record["data"]
        assert external["data"]["name"] == "other.json"
        assert external["model"] == record["model"]
        assert external["training"] == record["training"]
    assert sorted((environment.runs / "records").iterdir()) == before  # kept apart
    assert as_frame(found)["n"].tolist() == load_records(environment.runs / "external")["n"].tolist() == [2, 2, 2]
    assert [line.split(":")[0] for line in said] == [f"{r['run_id']} on other.json" for r in records[:3]]


def test_what_is_finished_is_read(records, other, environment, monkeypatch):
    first = evaluate(records[:3], other, environment, say=lambda line: None)
    monkeypatch.setattr("utils.external.load_base", None)  # loading would fail
    assert evaluate(records[:3], other, environment, say=lambda line: None) == first


def test_a_missing_adapter_is_named(records, other, environment, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no adapter of r1-a4.*do its run first"):
        evaluate(records[1:2], other, dataclasses.replace(environment, runs=tmp_path))


def test_one_model_at_a_time(records, other, environment):
    gemma = {**records[1], "config": records[1]["config"] | {"model": "gemma-3-270m"}}
    with pytest.raises(ValueError, match="several models"):
        evaluate([records[1], gemma], other, environment)
