"""Files as people have them: each loads with the right values, or ends in one sentence."""

import csv
import gzip
import io
import json

import pandas as pd
import pytest

from utils.data.rows import load_qa

# Eight rows that hold what tells encodings and separators apart; the letters are those of Windows-1250.
TEXTS = [f"Ţăranul {i}, zis „Miloš”; a stat şase ani în Iaşi." for i in range(8)]
ROWS = [{"text": t, "question": "Câţi ani?", "answer": "şase"} for t in TEXTS]
FOUND = [{**row, "source": ""} for row in ROWS]


def table(separator=",", rows=ROWS, ends="\r\n"):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=separator, lineterminator=ends)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1250"])
def test_a_table_of_any_separator_in_any_encoding(load, separator, encoding):
    assert load("rows.csv", table(separator).encode(encoding)) == FOUND
    assert load("rows.tsv", table(separator).encode(encoding)) == FOUND


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_lines_end_as_each_system_ends_them(load, ends):
    assert load("rows.csv", table(";", ends=ends)) == FOUND


def test_iso_8859_2_keeps_the_letters_that_windows_1250_has_elsewhere(load):
    plain = [{**row, "text": row["text"].replace("„", "").replace("”", "")} for row in ROWS]
    text = table(rows=plain)
    assert load("rows.csv", text.encode("iso8859_2"))[0]["text"] == "Ţăranul 0, zis Miloš; a stat şase ani în Iaşi."
    assert load("rows.csv", text.encode("cp1250"))[0]["text"] == "Ţăranul 0, zis Miloš; a stat şase ani în Iaşi."
    signs = text.replace("Miloš", "«Miloş» © 10 ± 2")  # AB, BB, A9 and B1, all signs in Windows-1250
    assert "zis «Miloş» © 10 ± 2;" in load("rows.csv", signs.encode("cp1250"))[0]["text"]


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.CSV.GZ", "rows.csv"])
def test_gzipped_whatever_its_name_says(load, name):
    assert load(name, gzip.compress(table().encode("cp1250"))) == FOUND


@pytest.mark.parametrize(
    "content",
    [
        "\n\n" + table(";"),
        "sep=;\r\n" + table(";"),
        table(";") + ";;\r\n;;\r\n",  # what a spreadsheet leaves under its last row
        table(";").replace("\r\n", ";\r\n"),
        table(";").replace("text;", '" Text, tot ";', 1).replace(" Text, tot ", " Text "),
    ],
)
def test_what_spreadsheets_put_around_a_table(load, content):
    assert load("rows.csv", content) == FOUND


def test_a_text_over_several_lines_stays_one(load):
    rows = [{**row, "text": row["text"] + '\nA zis "da".'} for row in ROWS]
    assert load("rows.csv", table(rows=rows, ends="\n"))[7]["text"] == TEXTS[7] + '\nA zis "da".'


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\u0085", "\u000b", "\u000c", "\u001e"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_line_separators_inside_a_json_string_do_not_cut_a_row(load, letter, name):
    # No ă in these rows: their UTF-8 would also pass for Windows-1250.
    rows = [{"text": f"Text {i}{letter}apoi", "question": "Ce?", "answer": f"{i}"} for i in range(4)]
    assert [row["text"] for row in load(name, rows)] == [f"Text {i}{letter}apoi" for i in range(4)]
    cells = [{**row, "text": f"Text {i}{letter}apoi"} for i, row in enumerate(rows)]
    assert [row["text"] for row in load("rows.csv", table(rows=cells))] == [f"Text {i}{letter}apoi" for i in range(4)]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS, indent=1),
        json.dumps({"data": ROWS}),
        json.dumps({"data": [{"paragraphs": [{"context": t, "qas": [{**r, "answers": []}]} for t, r in zip(TEXTS, ROWS, strict=True)]}]}),
        "\n".join(map(json.dumps, ROWS)),
    ],
)  # fmt: skip
def test_a_list_squad_and_lines_under_either_name(load, content):
    for name in ("rows.json", "rows.jsonl"):
        rows = load(name, content)
        assert [(row["text"], row["answer"]) for row in rows] == [(text, "şase") for text in TEXTS]


def test_parquet_keeps_whole_numbers_whole(load, tmp_path):
    frame = pd.DataFrame(
        {"context": TEXTS, "Question": "Când?", "answer": [1850, 1851, 1852, 1853, 1854, 1855, 1856, 1857]}
    )
    frame["answer"] = frame["answer"].astype("float64")  # what pandas makes of a column with a gap
    frame.to_parquet(tmp_path / "rows.parquet")
    assert [row["answer"] for row in load("rows.parquet", (tmp_path / "rows.parquet").read_bytes())][:2] == [
        "1850",
        "1851",
    ]


def test_squad_in_parquet(load, tmp_path):
    answers = [{"text": ["şase", "şase ani"], "answer_start": [1, 1]}] * 8
    pd.DataFrame({"context": TEXTS, "question": "Câţi?", "answers": answers}).to_parquet(tmp_path / "a.parquet")
    rows = load("rows.parquet", (tmp_path / "a.parquet").read_bytes())
    assert [row["answers"] for row in rows] == [["şase", "şase ani"]] * 8


WHOLE = gzip.compress(table().encode())
SQUAD = {"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "b?", "answers": [{"text": "a"}]}]}]}]}


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.csv.gz", WHOLE[:-20], "EOFError"),
        ("a.csv.gz", table().encode(), "Not a gzipped file"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "bytes that no text has"),
        ("a.csv", "text,question,answer\nUnu, doi,ce?,trei\nPatru,ce?,cinci\n", "line 2 has 4 cells where the header has 3"),
        ("a.csv", "text,question,answer\na,b?,c\nd,e?\n", "line 3 has 2 cells where the header has 3"),
        ("a.csv", 'text,question,answer\n"a,b?,c\nd,e?,f\n', "line 3 breaks its quotation marks"),
        ("a.csv", "text,question,text\na,b?,c\n", "its header names text twice"),
        ("a.csv", table().encode().replace(b"ani?", b"an\xff?", 1), "it is UTF-8 but for the byte"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b", "question" "c"}\n', "line 2 column 26"),
        ("a.json", '[{"text": "a",}]', "JSONDecodeError"),
        ("a.json", json.dumps({"data": [{"paragraphs": [{"qas": [{}]}]}]}), "KeyError: 'context'"),
        ("a.json", json.dumps({"data": ["a"]}), "AttributeError"),
        ("a.json", "[" * 100_000, "RecursionError"),
        ("a.json", json.dumps(SQUAD).encode("utf-16")[:-1], "UnicodeDecodeError"),
        ("a.parquet", b"PAR1" + b"\0" * 40 + b"PAR1", "cannot be read: "),
        ("a.parquet", table().encode(), "ArrowInvalid"),
        ("a.xlsx", b"PK\3\4", "ends in .xlsx; expected a source ending in .csv"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_ends_in_one_sentence(load, name, content, found):
    with pytest.raises(ValueError) as caught:
        load(name, content)
    said = str(caught.value)
    assert type(caught.value) is ValueError  # a library's own kinds are subclasses of it
    assert name in said and found in said and "expected" in said and "source" in said
    assert "\n" not in said and said.endswith(".") and len(said) < 600


def test_a_folder_of_files_under_the_names_that_people_give_them(tmp_path):
    (tmp_path / "Train.csv.gz").write_bytes(gzip.compress(table(rows=ROWS[:6]).encode("utf-16")))
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, ROWS[6:])))
    (tmp_path / "notes.json").write_text("{")  # no split, so never read
    data = load_qa(str(tmp_path))
    assert (data["train"]["text"][:], data["test"]["text"][:]) == (TEXTS[:6], TEXTS[6:])
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(ValueError, match=r"holds two files called train; expected one for each split"):
        load_qa(str(tmp_path))
