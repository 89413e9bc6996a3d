"""A local file or folder in, its raw rows out: tables and JSON as people have them, in whatever encoding."""

import csv
import gzip
import io
import json
import re
from pathlib import Path

import pyarrow.parquet

_TABLE = "a table with one header line and columns set apart by commas, semicolons or tabs"
_JSON = "SQuAD format (data, paragraphs, qas), a list of rows or one JSON object a line"
EXPECTED = {".csv": _TABLE, ".tsv": _TABLE, ".jsonl": _JSON, ".parquet": "a Parquet table", ".json": _JSON}
ENDINGS = ", ".join(EXPECTED)
TEST_NAMES = ("test", "validation", "valid", "val", "dev")  # of the rows to test on, the first that is there


def kind(path: Path) -> str:
    """Return how a file's name ends, in lower case and without .gz.

    Example: kind(Path("rows.JSONL.gz")) -> ".jsonl"
    """
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def read_splits(path: Path) -> dict[str, list]:
    """Return the raw rows of a file as {"all": rows}, or those of a folder's train and test files by their names.

    A file is CSV, TSV, JSON Lines, Parquet or JSON (a plain list or SQuAD), gzipped or not. Whatever keeps it from being
    read ends in a ValueError that names it, what was found and what was expected.
    Example: list(read_splits(Path("folder_of_Train_csv_and_test_jsonl_gz"))) -> ["test", "train"]
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}; expected the path of one as source.")
    if not path.is_dir():
        return {"all": _rows(path)}
    files = {}
    for file in sorted(path.iterdir()):
        name = file.name.split(".")[0].lower()
        if kind(file) in EXPECTED and name in ("train", *TEST_NAMES):
            if name in files:
                raise ValueError(f"{path} holds two files called {name}; expected one for each split of a source.")
            files[name] = file
    if not files:
        raise FileNotFoundError(f"source {path} holds no train and test file ending in {ENDINGS}.")
    return {name: _rows(file) for name, file in files.items()}


def _rows(path: Path) -> list:
    ending = kind(path)
    if ending not in EXPECTED:
        raise ValueError(f"{path} ends in {ending or 'nothing'}; expected a source ending in {ENDINGS}.")
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b" or path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
        if ending == ".parquet":
            return pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
        return _from_table(_decoded(content)) if ending in (".csv", ".tsv") else _from_json(_decoded(content))
    except Exception as error:  # each library has its own kinds of trouble; all mean that this is no such file
        why = " ".join(str(error).split()) or "no details"
        why = why if type(error) is ValueError else f"{type(error).__name__}: {why}"
        expected = f"expected {EXPECTED[ending]}, so mend the file or name another as source."
        raise ValueError(f"{path} cannot be read: {why:.200}; {expected}") from None


def _decoded(content: bytes) -> str:
    # UTF-8, UTF-16, Windows-1250 or ISO-8859-2; damaged UTF-8 is an error, not a guess.
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    if b"\0" in content:
        raise ValueError("it holds bytes that no text has")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kept = content.decode("utf-8", "replace")
        if sum(c > "\x7f" and c != "\ufffd" for c in kept) > kept.count("\ufffd"):
            raise ValueError(f"it is UTF-8 but for the byte {error.start}, 0x{content[error.start]:02X}") from None
    # The two share Romanian's letters. Where Windows-1250 has „ ” – Š Ž š ž, at 80 to 9F, ISO-8859-2 has nothing; it
    # keeps those four letters at A9, AE, B9 and BE, which are mostly signs in Windows-1250.
    letters = re.search(rb"(?i)[\xa9\xae\xb9\xbe](?=[a-z])|(?<=[a-z])[\xb9\xbe]", content)
    return content.decode("iso8859_2" if letters and not re.search(rb"[\x80-\x9f]", content) else "cp1250")


def _from_table(text: str) -> list[dict]:
    text = re.sub(r"\A[\r\n]*(sep=.\r?\n)?", "", text)  # Excel's word to itself about the separator
    head = re.sub(r'"[^"]*"', "", re.split(r"[\r\n]", text, maxsplit=1)[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    header, rows = [], []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue  # blank, or the ;;; under a spreadsheet's last row
            if not header:
                header = [cell.strip() for cell in cells]
                if twice := [name for name in header if name and header.count(name) > 1]:
                    raise ValueError(f"its header names {twice[0]} twice")
            elif len(cells) < len(header) or any(cells[len(header) :]):
                raise ValueError(f"line {reader.line_num} has {len(cells)} cells where the header has {len(header)}")
            else:
                rows.append(dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} breaks its quotation marks ({error})") from None
    return rows


def _from_json(text: str) -> list:
    decoder, values, at = json.JSONDecoder(strict=False), [], len(text) - len(text.lstrip())
    while at < len(text):  # one value or many; not cut into lines, for U+2028 and U+0085 stand inside strings
        value, at = decoder.raw_decode(text, at)
        values.append(value)
        at = re.compile(r"\s*").match(text, at).end()
    content = values[0] if len(values) == 1 else values
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        return [row for article in content["data"] for row in _from_squad(article)]
    return content if isinstance(content, list) else [content]


def _from_squad(article: dict) -> list[dict]:
    if isinstance(article, dict) and "paragraphs" not in article:
        return [article]  # rows under "data"
    about = {"source": article.get("title"), "answers": []}
    return [{**about, "text": part["context"], **qa} for part in article["paragraphs"] for qa in part["qas"]]
