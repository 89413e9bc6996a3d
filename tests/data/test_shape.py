"""Rows as people have them: columns by other names, answers in other forms, and what cannot be mended by guessing."""

import json

import pytest

from utils.data.rows import load_qa

ROWS = [
    {"text": f"Orașul {i} are {i} porți.", "question": f"Câte porți are orașul {i}?", "answer": f"{i}"}
    for i in range(8)
]
FOUND = [{**row, "source": ""} for row in ROWS]


def renamed(rows=ROWS, **names):
    return [{names.get(name, name): value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize(
    "names",
    [
        {"text": "Text", "question": "QUESTION", "answer": "Answer"},
        {"text": " text", "question": "question ", "answer": "\tAnswer "},
        {"text": "context"},
        {"text": "Context ", "question": "Întrebare", "answer": "Răspuns"},
        {"text": "passage", "question": "q", "answer": "a"},
        {"answer": "answers"},  # a column that is called answers and holds one text
    ],
)
def test_columns_are_known_by_their_other_names(load, names):
    rows = load("rows.jsonl", renamed(**names))
    assert [{column: row[column] for column in FOUND[0]} for row in rows] == FOUND


def test_of_several_known_names_the_nearest_is_taken(load):
    rows = [{"document": "D", "context": row["text"], "url": "u", "title": "t", **row, "Text": "x"} for row in ROWS]
    assert load("rows.jsonl", rows) == [{**row, "source": "t"} for row in ROWS]
    rows = [{"document": "D", "Context": row["text"], **row} for row in ROWS]
    assert load("rows.jsonl", [{k: v for k, v in row.items() if k != "text"} for row in rows]) == FOUND


@pytest.mark.parametrize(
    "names",
    [{"text": "Epicriza"}, {"answer": "Rezultat", "text": "Epicriza", "question": "Cerere"}],
)
def test_missing_columns_are_named_with_the_argument_that_says_which_is_which(load, names):
    rows = [{"id": f"nr{i}", **row, "nota": ""} for i, row in enumerate(renamed(**names))]
    with pytest.raises(ValueError) as caught:
        load("rows.jsonl", rows)
    said, missing = str(caught.value), [column for column in ROWS[0] if column in names]
    assert f"lacks the columns {missing}" in said
    assert "found ['id', " in said
    template = ", ".join(f'"{column}": "..."' for column in missing)
    assert said.endswith(f"say which is which by load_qa(..., columns={{{template}}}).")
    assert load("rows.jsonl", rows, columns=names) == FOUND  # filled in, it works


def test_columns_go_before_the_names_we_know(load):
    rows = [{"Epicriza": row["text"], **row, "text": "alt text", "context": "altul"} for row in ROWS]
    assert load("rows.jsonl", rows, columns={"text": "Epicriza"}) == FOUND
    swapped = renamed(question="text", text="question")
    assert load("rows.jsonl", swapped, columns={"text": "question", "question": "text"}) == FOUND
    assert load("rows.jsonl", renamed(text=" Epicriza "), columns={"text": "epicriza"}) == FOUND


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": "Epicrisa"}, r"columns names 'Epicrisa' for text; found \['answer', 'question', 'text'\], expected"),
        ({"Epicriza": "text"}, r"columns has the key 'Epicriza'; expected one of \['text', 'question'"),
    ],
)
def test_columns_that_name_nothing_are_an_error(load, columns, message):
    with pytest.raises(ValueError, match=message):
        load("rows.jsonl", ROWS, columns=columns)


def test_columns_are_those_of_either_dataset(load, tmp_path):
    load("rows.jsonl", renamed(text="Epicriza"), columns={"text": "Epicriza"})
    data = load_qa("bundled", 12, test_source=str(tmp_path / "rows.jsonl"), columns={"text": "Epicriza"})
    assert (len(data["train"]), data["test"]["text"][0]) == (12, ROWS[0]["text"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1850, "1850"),
        (1850.0, "1850"),
        (12345678.0, "12345678"),
        (2.3841234, "2.3841234"),
        (-0.5, "-0.5"),
        (0, "0"),
        (" da ", "da"),
    ],
)
def test_numbers_are_answers_digit_for_digit(load, value, text):
    assert {row["answer"] for row in load("rows.jsonl", [{**row, "answer": value} for row in ROWS])} == {text}
    rows = load("rows.jsonl", [{**row, "answer": value, "answers": [value, 7]} for row in ROWS])
    assert rows[0]["answers"] == [text, "7"]


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ({"text": ["două", "2"], "answer_start": [1, 1]}, ["două", "2"]),  # the Hub's form
        ({"text": "două", "answer_start": 1}, ["două"]),  # not its letters one by one
        ([{"text": "două", "answer_start": 1}, {"text": "2"}], ["două", "2"]),  # SQuAD's own
        (["două", "2", "două"], ["două", "2"]),
    ],
)
def test_answers_in_each_of_their_forms(load, answers, found):
    rows = [{"context": row["text"], "question": row["question"], "answers": answers} for row in ROWS]
    assert {(row["answer"], *row["answers"]) for row in load("rows.jsonl", rows)} == {(found[0], *found)}


IMPOSSIBLE = [{"answers": {"text": []}}, {"answers": []}, {}, {"answers": None}, {"is_impossible": True},
              {"answers": {"text": [""]}}, {"answers": [], "answer": ""},
              {"is_impossible": True, "answers": [{"text": "patru"}]}]  # fmt: skip


@pytest.mark.parametrize("impossible", IMPOSSIBLE)
def test_squad_v2s_impossible_questions_are_left_out_and_counted(load, capsys, impossible):
    rows = [
        {"context": row["text"], "question": "Ce?", "answers": {"text": ["porți"]}, "is_impossible": False}
        for row in ROWS
    ]
    rows[2:5] = [{"context": row["text"], "question": "Ce?", **impossible} for row in ROWS[2:5]]
    assert [row["text"] for row in load("rows.jsonl", rows)] == [ROWS[i]["text"] for i in (0, 1, 5, 6, 7)]
    assert (
        "3 of 8 questions have no answer in the text and are left out, the first is row 2." in capsys.readouterr().out
    )


@pytest.mark.parametrize("empty", ["", "  ", None, float("nan"), "\u00a0"])
@pytest.mark.parametrize("count", [1, 50])
def test_a_few_empty_answers_among_a_thousand_are_left_out_and_told(load, capsys, empty, count):
    rows = [{**ROWS[i % 8], "question": f"{i}?", "answer": empty if i >= 1000 - count else "x"} for i in range(1000)]
    assert len(load("rows.jsonl", rows)) == 1000 - count
    told = f"rows.jsonl: {count} of 1000 rows have an empty answer and are left out, the first is row {1000 - count}.\n"
    first, second = capsys.readouterr().out.splitlines(keepends=True)
    assert first.endswith(told)
    assert "has no test split" in second


def test_more_than_five_in_a_hundred_are_an_error(load, capsys):
    rows = [{**ROWS[i % 8], "question": f"{i}?", "answer": "" if i < 51 else "x"} for i in range(1000)]
    with pytest.raises(
        ValueError, match="51 of 1000 answers are empty, the first in row 0; expected texts.*by columns"
    ):
        load("rows.jsonl", rows)
    assert capsys.readouterr().out == ""


def test_answers_of_our_own_shape_must_hold_their_answer(load):
    ours = [{**row, "topic": "t", "phase": 1, "answers": [row["answer"], "alt"]} for row in ROWS]
    assert load("rows.jsonl", ours)[3]["answers"] == ["3", "alt"]
    with pytest.raises(ValueError, match=r"row 5: answers \['altul'\] lacks the answer '5'"):
        load("rows.jsonl", [*ours[:5], {**ours[5], "answers": ["altul"]}, *ours[6:]])
    with pytest.raises(ValueError, match=r"row 5: answers \['5', ' '\] holds an empty one"):
        load("rows.jsonl", [*ours[:5], {**ours[5], "answers": ["5", " "]}, *ours[6:]])
    theirs = [{**row, "answers": ["alt", row["answer"]]} for row in ROWS]
    assert load("rows.jsonl", theirs)[3]["answers"] == ["3", "alt"]  # theirs begin with the answer, too


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": ""}, r"row 3 has an empty text; expected a text"),
        ({"answer": ["3"]}, r"row 3, column answer is \['3'\]; expected a text: name another column by columns"),
        ({"answer": True}, r"row 3, column answer is True; expected a text"),
        ({"answer": float("inf")}, r"row 3, column answer is inf; expected a text"),
        ({"text": "a" * 100_000}, r"row 3, column text has 100,000 characters; expected at most 50,000: shorten it"),
        ({"text": "a\ud800"}, r"row 3, column text holds half a character \('a\\ud800'\)"),
        ({"answers": "['3']"}, r"row 3: answers is .*; expected a list of texts"),
        ({"answers": 3}, r"row 3: answers is 3; expected a list of texts"),
        ({"answers": [None, "3"]}, r"row 3: answers \[None, '3'\] holds an empty one"),
        ({"answers": [{"text": ["3"]}]}, r"row 3, column answers is \['3'\]; expected a text"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(load, change, message):
    rows = [{**row, **(change if i == 3 else {})} for i, row in enumerate(ROWS)]
    with pytest.raises(ValueError, match=message) as caught:
        load("rows.jsonl", "\n".join(map(json.dumps, rows)))
    assert type(caught.value) is ValueError and "\n" not in str(caught.value)


@pytest.mark.parametrize("topics", [[1, "x"] * 4, [None, "x"] * 4, [2.0, 7] * 4])
def test_topics_of_any_kind_are_texts(load, topics):
    rows = load("rows.jsonl", [{**row, "topic": t} for row, t in zip(ROWS, topics, strict=True)])
    assert [row["topic"] for row in rows] == [
        "" if t is None else f"{t:g}" if isinstance(t, float) else str(t) for t in topics
    ]


@pytest.mark.parametrize(
    ("phases", "found"), [([1, None] * 4, [1, None]), ([1, "x"] * 4, ["1", "x"]), ([1, 10**30] * 4, ["1", str(10**30)])]
)
def test_phases_stay_whole_numbers_where_all_are(load, phases, found):
    rows = load("rows.jsonl", [{**row, "phase": p} for row, p in zip(ROWS, phases, strict=True)])
    assert [row["phase"] for row in rows[:2]] == found


def test_only_rows_are_rows(load):
    with pytest.raises(ValueError, match=r"rows.json holds str items; expected as source rows with"):
        load("rows.json", '["a", "b"]')
