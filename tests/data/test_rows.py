import gzip
import json
from collections import Counter

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils.data import rows as data_module
from utils.data.checks import answer_kind, validate_qa
from utils.data.rows import draw_examples, fingerprint, load_qa, take_evenly
from utils.paper import TABLE_1

ROWS = [
    {"text": f"Textul numărul {i}.", "question": f"Ce număr are textul {i}?", "answer": str(i), "source": f"s{i}"}
    for i in range(8)
]


def test_the_bundled_rows_have_table_1s_counts():
    data = load_qa("bundled")
    for split in ("train", "test"):
        for phase in TABLE_1:
            rows = [row for row in data[split] if row["phase"] == phase["phase"]]
            counts = Counter(row["topic"] for row in rows)
            assert len(rows) == phase[split]
            assert set(counts) == set(phase["topics"])
            assert max(counts.values()) - min(counts.values()) <= 1


def test_a_subset_is_even_over_topics_and_the_same_every_time():
    data = load_qa("bundled", train_rows=78, test_rows=39)
    assert set(Counter(data["train"]["topic"]).values()) == {2}
    assert set(Counter(data["test"]["topic"]).values()) == {1}
    assert fingerprint(data) == fingerprint(load_qa("bundled", train_rows=78, test_rows=39))
    assert fingerprint(data) != fingerprint(load_qa("bundled", train_rows=78, test_rows=39, seed=1))


def test_take_evenly_gives_every_topic_its_turn():
    rows = [{"topic": t, "source": "", "i": i} for i, t in enumerate("aaab")]
    assert sorted(row["topic"] for row in take_evenly(rows, 2)) == ["a", "b"]
    assert take_evenly(rows, None) == rows == take_evenly(rows, 9)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_local_table_is_split_three_to_one_with_every_text_on_one_side(tmp_path, suffix):
    rows = [{**row, "question": q} for row in ROWS for q in (row["question"], "Care număr?")]
    path = tmp_path / f"rows{suffix}"
    if suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    data = load_qa(str(path))
    assert (len(data["train"]), len(data["test"])) == (12, 4)
    assert not set(data["train"]["text"]) & set(data["test"]["text"])
    assert {*data["train"]["answer"], *data["test"]["answer"]} == set("01234567")  # still text, not numbers


def test_a_folder_with_train_and_test_files_keeps_its_split(tmp_path):
    for split, rows in (("train", ROWS[:6]), ("test", ROWS[6:])):
        pd.DataFrame(rows).drop(columns="source").to_csv(tmp_path / f"{split}.csv", index=False)
    data = load_qa(str(tmp_path))
    assert (len(data["train"]), len(data["test"])) == (6, 2)
    assert data["train"][0]["source"] == ""


def test_squad_json_is_read_and_questions_without_an_answer_are_left_out(tmp_path):
    qas = [{"question": "Ce?", "answers": [{"text": "a", "answer_start": 0}]}, {"question": "Cine?", "answers": []}]
    paragraphs = [{"context": f"a {i}", "qas": qas} for i in range(4)]
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"title": "T", "paragraphs": paragraphs}]}))
    data = load_qa(str(tmp_path / "squad.json"))
    assert (len(data["train"]), len(data["test"])) == (3, 1)
    assert data["test"][0]["question"] == "Ce?"
    assert data["test"][0]["source"] == "T"


def test_all_accepted_answers_are_kept_the_first_of_them_as_the_answer(tmp_path):
    answers = [{"text": t, "answer_start": 0} for t in ("în 1850", "1850", "1850")]
    paragraphs = [{"context": f"{i} în 1850", "qas": [{"question": "Când?", "answers": answers}]} for i in range(4)]
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    row = load_qa(str(tmp_path / "squad.json"))["test"][0]
    assert (row["answer"], row["answers"]) == ("în 1850", ["în 1850", "1850"])
    assert len(load_qa("bundled")["test"][0]["answers"]) == 3  # the bundled test rows have them too


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{**ROWS[0], "answers": "0"}], "row 0: answers is '0'; expected a list"),
        ([{**ROWS[0], "answers": ["0", 7]}], "row 0: answers is"),
        (
            [{"Epicrize": "a", "question": "b", "answer": "c"}],
            r"lacks the column \['text'\]; found .*'Epicrize'.*columns=\{\"text\": \"Epicrize\"\}",
        ),
        ([], "has no rows"),
        ([{"text": "a", "question": " ", "answer": "c"}], "row 0 cannot be used"),
        ([{"text": "a", "question": "b", "answer": {"x": 7}}], "row 0, column answer is .*7.*expected a text"),
        ([{**ROWS[0], "answer": ""}] * 3, "3 of 3 answers are empty"),
        ([ROWS[0]], "test has no rows"),  # one text cannot be split in two
    ],
)
def test_unusable_rows_are_named(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in content))
    with pytest.raises(ValueError, match=message):
        load_qa(str(path))


def test_the_test_rows_can_come_from_another_dataset(tmp_path):
    qas = [{"question": "Ce?", "answers": [{"text": t, "answer_start": 0} for t in "ab"]}]
    paragraphs = [{"context": f"a {i}", "qas": qas} for i in range(4)]
    (tmp_path / "other.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    data, own = load_qa("bundled", 78, test_source=str(tmp_path / "other.json")), load_qa("bundled", 78)
    assert data["train"].to_list() == own["train"].to_list()
    assert [row["text"] for row in data["test"]] == ["a 0", "a 1", "a 2", "a 3"]  # all rows, none kept for training
    assert [data[split].info.dataset_name for split in ("train", "test")] == ["bundled", "other.json"]
    assert data["test"][0]["answers"] == ["a", "b"]
    assert fingerprint(data) != fingerprint(own)


def test_a_configuration_of_a_hub_dataset_in_squads_form(monkeypatch):
    def load_dataset(*name):
        assert name == ("google/xquad", "xquad.ro")
        columns = {"id": "1", "context": "În 1850.", "question": "Când?"}
        rows = [{**columns, "answers": {"text": t, "answer_start": [0] * len(t)}} for t in (["1850", "În 1850"], [])]
        return DatasetDict(validation=Dataset.from_list(rows))

    monkeypatch.setattr(data_module, "hub_reachable", lambda: True)
    monkeypatch.setattr(data_module, "load_dataset", load_dataset)
    test = load_qa("bundled", test_source="google/xquad:xquad.ro")["test"].to_list()
    found = {"text": "În 1850.", "question": "Când?", "answer": "1850", "source": "", "answers": ["1850", "În 1850"]}
    assert test == [found]  # the question without an answer is left out
    alone = load_qa("bundled", 12, 6)  # a set of one split is divided, all questions of a text on one side
    monkeypatch.setattr(
        data_module,
        "load_dataset",
        lambda *_: DatasetDict(Train=Dataset.from_list(ROWS[:6]), Test=Dataset.from_list(ROWS[6:])),
    )
    named = load_qa("owner/name")
    assert (len(named["train"]), len(named["test"])) == (6, 2)
    monkeypatch.setattr(data_module, "load_dataset", lambda *_: DatasetDict(train=alone["train"]))
    single = load_qa("owner/name")
    assert len(single["train"]) + len(single["test"]) == 12
    assert not set(single["train"]["text"]) & set(single["test"]["text"])


def test_examples_are_of_separate_texts_and_fewer_are_the_first_of_more():
    rows = [{**row, "question": q} for row in ROWS[:3] for q in "abc"]
    drawn = draw_examples(rows, 3, seed=1)
    assert len({row["text"] for row in drawn}) == 3
    assert draw_examples(rows, 1, seed=1) == drawn[:1]
    assert any(draw_examples(rows, 3, seed=seed) != drawn for seed in range(5))
    assert draw_examples(rows, 0) == []
    with pytest.raises(ValueError, match="4 examples were asked for; the training rows hold 3"):
        draw_examples(rows, 4)


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", "{"), ("b.json", '{"version": 2}'), ("c.jsonl", "{]"), ("d.csv", "")]
)
def test_an_unreadable_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} (cannot be read|has no rows)"):
        load_qa(str(tmp_path / name))


def test_a_wrong_source_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match="Unknown dataset 'bundeld'"):
        load_qa("bundeld")
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        load_qa(str(tmp_path / "missing.csv"))
    with pytest.raises(FileNotFoundError, match="no train and test file"):
        load_qa(str(tmp_path))
    with pytest.raises(ValueError, match="train_rows is 0"):
        load_qa("bundled", train_rows=0)


@pytest.mark.parametrize("source", ["hub", "nobody/nothing"])
def test_without_a_network_the_hub_is_one_clear_message(source):
    with pytest.raises(ConnectionError, match=r"cannot be reached.*source='bundled'"):
        load_qa(source)


def written(path, content):
    path.write_bytes(content)
    data = load_qa(str(path))
    return [row for split in ("train", "test") for row in data[split]]


TABLE = "text{0}question{0}answer\n" + "\n".join(f"Șoseaua {i} ţine.{{0}}Ce ține {i}?{{0}}{1900 + i}" for i in range(8))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", TABLE.format(",").encode()),
        ("rows.csv", TABLE.format(";").encode()),
        ("rows.csv", TABLE.format("\t").encode()),
        ("rows.tsv", TABLE.format("\t").encode()),
        ("rows.csv", TABLE.format(",").encode("utf-16")),
        ("rows.csv", TABLE.format(",").encode("utf-8-sig")),
        ("rows.csv.gz", gzip.compress(TABLE.format(";").encode())),
        ("rows.csv", TABLE.format(",").replace("Ș", "Ş").replace("ș", "ş").replace("ține", "ţine").encode("cp1250")),
        ("rows.csv", TABLE.format(",").replace("Ș", "Ş").replace("ș", "ş").replace("ține", "ţine").encode("iso8859_2")),
        ("rows.csv", TABLE.format(",").replace("text,question,answer", " Text ,QUESTION,Answer").encode()),
        ("rows.csv", TABLE.format(",").replace("text,", "context,").encode()),
    ],
)
def test_tables_as_people_have_them(tmp_path, name, content):
    rows = written(tmp_path / name, content)
    assert len(rows) == 8
    assert {row["answer"] for row in rows} == {str(1900 + i) for i in range(8)}
    assert all("oseaua" in row["text"] and ("ţine." in row["text"]) for row in rows)


def test_line_separators_inside_a_string_do_not_cut_a_row(tmp_path):
    rows = [{**row, "text": f"{row['text']}\u2028și\u0085apoi"} for row in ROWS]
    content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    assert {row["text"] for row in written(tmp_path / "rows.jsonl", content)} == {row["text"] for row in rows}


def test_other_names_are_told_by_the_columns_argument(tmp_path):
    rows = [{"Epicriza": r["text"], "Cerere": r["question"], "answer": 7 + i} for i, r in enumerate(ROWS)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match='"text": "Cerere", "question": "Epicriza"'):
        load_qa(str(tmp_path / "rows.json"))
    data = load_qa(str(tmp_path / "rows.json"), columns={"text": "Epicriza", "question": "Cerere"})
    assert sorted(int(a) for split in data for a in data[split]["answer"]) == list(range(7, 15))


def test_one_empty_answer_among_many_is_left_out_and_told(tmp_path, capsys):
    rows = [{**ROWS[i % 8], "question": f"{i}?"} for i in range(100)]
    rows[3]["answer"] = " "
    content = "\n".join(map(json.dumps, rows)).encode()
    assert len(written(tmp_path / "rows.jsonl", content)) == 99
    assert "1 of 100 rows have no answer and are left out, the first is row 3" in capsys.readouterr().out


def test_hub_shaped_squad_rows_in_a_local_file(tmp_path):
    rows = [{"context": f"a {i}", "question": "b?", "answers": {"text": ["a", "b"] if i else []}} for i in range(5)]
    found = written(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert [(row["answer"], row["answers"]) for row in found] == [("a", ["a", "b"])] * 4


def test_an_answers_list_that_lacks_its_answer_is_named(tmp_path):
    rows = [{**row, "topic": "t", "answers": ["altul"]} for row in ROWS]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=r"row 0: answers \['altul'\] lacks the answer '0'"):
        load_qa(str(tmp_path / "rows.json"))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.csv.gz"]),
       st.binary(max_size=200) | st.text(max_size=200).map(str.encode)
       | st.recursive(st.none() | st.integers() | st.text(max_size=9), lambda x: st.lists(x, max_size=4)
                      | st.dictionaries(st.sampled_from(["text", "question", "answer", "answers", "data", "x"]), x, max_size=4),
                      max_leaves=12).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_a_file_holds_ends_in_rows_or_in_a_sentence(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    try:
        assert len(load_qa(str(path))["train"]) > 0
    except ValueError as error:
        assert str(path) in str(error)


def test_the_second_test_set_keeps_what_its_card_promises():
    data = load_qa("bundled", test_source="bundled-more")
    rows = data["test"].to_list()
    assert (len(data["train"]), len(rows), len({row["topic"] for row in rows})) == (600, 300, 59)
    assert all(row["answers"][0] == row["answer"] and row["phase"] is None for row in rows)
    assert validate_qa(data).empty
    thirds = Counter(min(2, 3 * row["text"].find(row["answer"]) // len(row["text"])) for row in rows)
    assert max(thirds.values()) - min(thirds.values()) <= 0.12 * 300
    assert sum(answer_kind(row["question"], row["answer"]) == "number" for row in rows) <= 0.25 * 300
    assert fingerprint(data) != fingerprint(load_qa("bundled"))
