"""A local file in, its rows out: tables and JSON as people have them, whatever their encoding or separator."""

import csv
import gzip
import io
import json
from pathlib import Path

import pandas as pd

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".json")
ENCODINGS = ("utf-8-sig", "cp1250", "iso8859_2")  # tried in this order; UTF-16 is known by its first two bytes


def is_data_file(path: Path) -> bool:
    """Return whether a name ends as a data file does, compressed or not.

    Example: is_data_file(Path("rows.jsonl.gz")) -> True
    """
    return _kind(path) in SUFFIXES


def read_rows(path: Path) -> list[dict]:
    """Return the rows of a CSV, TSV, JSON Lines, Parquet or JSON file (plain list or SQuAD), gzipped or not.

    Whatever keeps a file from being read ends in a ValueError that names it and what was expected.

    Example: read_rows(Path("rows.csv"))[0] -> {"text": "...", "question": "...", "answer": "...", "source": ""}
    """
    kind = _kind(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if kind == ".parquet":
            return pd.read_parquet(io.BytesIO(content)).to_dict("records")
        text = _decoded(content)
        if kind in (".csv", ".tsv"):
            return _table(text, kind)
        if kind == ".jsonl":  # lines end at \n alone: U+2028 and U+0085 may stand inside a string
            return [json.loads(line) for line in io.StringIO(text, newline="\n") if line.strip()]
        return _json(json.loads(text))
    except Exception as error:  # each library has its own kinds of trouble; all mean that this is no such file
        expected = "SQuAD format (data, paragraphs, qas) or a list of rows" if kind == ".json" else f"a {kind} table"
        why = (str(error).strip() or "no details").splitlines()[0]
        raise ValueError(f"{path} cannot be read as {expected}: {type(error).__name__}: {why:.200}") from None


def _kind(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def _decoded(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    if b"\0" in content:
        raise ValueError("it holds bytes that no text has")
    best = None
    for encoding in ENCODINGS:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        # Windows-1250 and ISO-8859-2 read each other's bytes: the one that leaves no control characters is right.
        if not any("\x80" <= c <= "\x9f" for c in text):
            return text
        best = best or text
    if best is None:
        raise ValueError(f"its encoding is none of {', '.join(ENCODINGS)} and UTF-16")
    return best


def _table(text: str, kind: str) -> list[dict]:
    head = text.split("\n", 1)[0]
    separator = "\t" if kind == ".tsv" else max(",;\t", key=head.count)
    frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, quoting=csv.QUOTE_MINIMAL)
    return frame.to_dict("records")


def _json(content: dict | list) -> list[dict]:
    if isinstance(content, list):
        return content
    return [
        {"text": p["context"], "question": qa["question"], "answers": [one["text"] for one in qa.get("answers", [])],
         "answer": next((one["text"] for one in qa.get("answers", [])), ""), "source": a.get("title", "")}
        for a in content["data"] for p in a["paragraphs"] for qa in p["qas"]
    ]  # fmt: skip
