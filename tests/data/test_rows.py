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
        ([{**ROWS[0], "answers": ["0", ""]}], r"row 0: answers \['0', ''\] holds an empty one"),
        (
            [{"Epicrize": "a", "question": "b", "answer": "c"}],
            r"lacks the columns \['text'\]; found .*'Epicrize'.*columns=\{\"text\": \"...\"\}",
        ),
        ([], "has no rows"),
        ([{"text": "a", "question": " ", "answer": "c"}], "row 0 has an empty question"),
        ([{"text": "a", "question": "b", "answer": {"x": 7}}], "row 0, column answer is .*7.*expected a text"),
        ([{**ROWS[0], "answer": ""}] * 3, "3 of 3 answers are empty"),
        ([ROWS[0]], "has a single text"),  # one text cannot be split in two
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


@pytest.fixture
def hub(monkeypatch):
    """hub(Train=rows, Test=rows) makes the Hub answer with these splits, whatever it is asked for."""

    def hub(**splits):
        data = DatasetDict({split: Dataset.from_list(rows) for split, rows in splits.items()})
        monkeypatch.setattr(data_module, "hub_reachable", lambda: True)
        monkeypatch.setattr(data_module, "load_dataset", lambda *name: data)

    return hub


@pytest.mark.parametrize(
    "names", [("Train", "Test"), ("train", "validation"), ("TRAIN", "dev"), ("train", "Validation ")]
)
def test_the_splits_of_a_hub_set_by_the_names_they_have(hub, names):
    hub(**dict(zip(names, (ROWS[:5], ROWS[5:]), strict=True)))
    data = load_qa("owner/name")
    assert (data["train"]["answer"][:], data["test"]["answer"][:]) == (list("01234"), list("567"))
    assert load_qa("bundled", 12, test_source="owner/name")["test"]["answer"][:] == list("567")


def test_a_test_split_goes_before_a_validation_split(hub):
    hub(validation=ROWS[:1], train=ROWS[1:6], test=ROWS[6:])
    assert load_qa("owner/name")["test"]["answer"][:] == list("67")


@pytest.mark.parametrize("name", ["train", "Train", "test", "default"])
def test_a_hub_set_of_a_single_split_is_divided(hub, name, capsys):
    hub(**{name: ROWS})
    data = load_qa("owner/name")
    assert (len(data["train"]), len(data["test"])) == (6, 2)
    assert capsys.readouterr().out == "owner/name has no test split: 2 rows are kept out of training.\n"
    assert load_qa("bundled", 12, test_source="owner/name")["test"].num_rows == 8  # none of them kept for training
    again = load_qa("owner/name", test_source="bundled")["train"].to_list()
    assert again == data["train"].to_list()  # the same adapter answers both test sets
    assert "owner/name has no test split: 2 rows are kept out of training" in capsys.readouterr().out


def test_splits_that_are_not_for_training_and_testing_are_named(hub):
    hub(train=ROWS, extra=ROWS)
    with pytest.raises(ValueError, match=r"no split called test; found \['train', 'extra'\].*as test_source"):
        load_qa("owner/name")
    with pytest.raises(ValueError, match=r"has the splits \['train', 'extra'\]; expected a test split"):
        load_qa("bundled", test_source="owner/name")


def test_a_hub_set_with_columns_of_its_own(hub):
    own = [{"Epicriza": row["text"], "Cerere ": row["question"], "Raspuns": int(row["answer"])} for row in ROWS]
    hub(train=own[:6], test=own[6:])
    with pytest.raises(
        ValueError, match=r'found \[\'Epicriza\', \'Cerere \', .*columns=\{"text": "...", "question": "..."\}'
    ):
        load_qa("owner/name")
    data = load_qa("owner/name", columns={"text": "Epicriza", "question": "Cerere"})
    assert data["test"][1] == {**ROWS[7], "source": ""}


def test_what_the_hub_answers_is_told_in_one_message(monkeypatch):
    def load_dataset(*name):
        raise RuntimeError("Config name is missing.\nPlease pick one")

    monkeypatch.setattr(data_module, "hub_reachable", lambda: True)
    monkeypatch.setattr(data_module, "load_dataset", load_dataset)
    with pytest.raises(
        ConnectionError, match="RuntimeError: Config name is missing. .*source='owner/name:configuration'"
    ):
        load_qa("owner/name")


def test_the_second_test_set_is_no_source_to_train_on():
    with pytest.raises(ValueError, match=r"bundled-more has no split called train; found \['test'\].*as test_source"):
        load_qa("bundled-more")


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
    with pytest.raises(ValueError, match=rf"{name} (cannot be read|has no rows|lacks the columns)"):
        load_qa(str(tmp_path / name))


def test_a_wrong_source_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match="Unknown dataset 'bundeld'"):
        load_qa("bundeld")
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*missing\.csv; expected .* source"):
        load_qa(str(tmp_path / "missing.csv"))
    with pytest.raises(FileNotFoundError, match="no train and test file"):
        load_qa(str(tmp_path))
    with pytest.raises(ValueError, match="train_rows is 0"):
        load_qa("bundled", train_rows=0)


@pytest.mark.parametrize("source", ["hub", "nobody/nothing"])
def test_without_a_network_the_hub_is_one_clear_message(source):
    with pytest.raises(ConnectionError, match=r"cannot be reached.*source='bundled'"):
        load_qa(source)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["a", "a?", "\ud800"]),
    lambda some: (
        st.lists(some, max_size=3) | st.dictionaries(st.sampled_from(["text", "answers", "qas", "x"]), some, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["text", " Context", "question", "answer", "answers", "topic", "phase", "is_impossible", "data", "x"]
)
SAID = st.sampled_from(["unu", "doi", " trei", 1850, 2.5])  # what a row may well hold
ANSWERS = st.lists(SAID, max_size=3)
PLAIN = {"text": st.sampled_from("abc"), "question": st.just("b?"), "answer": SAID}
LIKELY = st.fixed_dictionaries(
    PLAIN, optional={"answers": ANSWERS | ANSWERS.map(lambda a: {"text": a}), "topic": SAID, "phase": SAID}
)
QUEER = st.fixed_dictionaries(
    PLAIN | {"answer": VALUES}, optional={"answers": VALUES, "topic": VALUES, "phase": VALUES}
)
SQUAD = [
    {"paragraphs": [{"context": f"a {i}", "qas": [{"question": "b?", "answers": [{"text": "a"}]}]} for i in range(4)]}
]
WHOLE = {
    ".csv": ("text;question;answer\n" + "".join(f'"Țara {i}";Ce?;{i}\n' for i in range(9))).encode(),
    ".tsv": ("text\tquestion\tanswer\n" + "".join(f"Ţara {i}\tCe?\t{i}\n" for i in range(9))).encode("cp1250"),
    ".jsonl": "\n".join(json.dumps({**row, "topic": "t", "answers": [row["answer"]]}) for row in ROWS).encode("utf-16"),
    ".json": json.dumps({"data": SQUAD}).encode(),
    ".parquet": pd.DataFrame(ROWS).to_parquet(),
}


@st.composite
def files(draw):
    """A name and bytes: noise, a text, JSON of any shape, rows of any values, or a good file that was cut or overwritten."""
    kind = draw(st.sampled_from(["noise", "text", "json", "rows", "rows", "likely", "likely", "damaged", "damaged"]))
    suffix = draw(st.sampled_from([".json", ".jsonl"] if kind in ("json", "rows", "likely") else list(WHOLE)))
    if kind == "damaged":
        content, new = WHOLE[suffix], draw(st.binary(max_size=3))
        at = draw(st.integers(0, len(content)))
        content = content[:at] + new + draw(st.sampled_from([b"", content[at:], content[at + len(new) :]]))
    elif kind in ("noise", "text"):
        content = draw(st.binary(max_size=200) if kind == "noise" else st.text(max_size=200).map(str.encode))
    else:
        rows = st.dictionaries(NAMES, VALUES, max_size=6) | QUEER
        value = VALUES if kind == "json" else st.lists(LIKELY if kind == "likely" else rows, min_size=2, max_size=6)
        content = json.dumps(draw(value)).encode()
    if draw(st.booleans()):
        return f"a{suffix}.gz", gzip.compress(content)[: draw(st.sampled_from([None, None, None, -1]))]
    return f"a{suffix}", content


@pytest.mark.long
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(files())
def test_whatever_a_file_holds_ends_in_rows_or_in_a_sentence(tmp_path, file):
    name, content = file
    path = tmp_path / name
    path.write_bytes(content)
    try:
        data = load_qa(str(path))
    except ValueError as error:
        said = str(error)
        assert type(error) is ValueError, error  # what libraries raise are subclasses of it
        assert said.startswith(str(path)) and "expected" in said and "\n" not in said and said[-1] == "."
        return
    for row in [*data["train"], *data["test"]]:
        assert all(row[column].strip() for column in ("text", "question", "answer"))
        assert row.get("answers", [row["answer"]])[0] == row["answer"]


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
