"""Question-answering rows from the Hub, the bundled set or a local file, all in one shape."""

import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from datasets import Dataset, DatasetDict, load_dataset

from utils.environment import hub_reachable
from utils.paper import HUB_DATASET

BUNDLED = Path(__file__).parent / "bundled"
COLUMNS = ("text", "question", "answer", "source")
SUFFIXES = (".csv", ".jsonl", ".parquet", ".json")
TEST_SHARE = 0.25  # the paper's 200 of 800, for a file that comes without a split


def load_qa(
    source: str,
    train_rows: int | None = None,
    test_rows: int | None = None,
    seed: int = 0,
    test_source: str | None = None,
) -> DatasetDict:
    """Return `train` and `test` rows with the columns text, question, answer and source (topic, phase where known).

    `source` is "bundled", "hub" (the paper's dataset), another Hub id "owner/name" or "owner/name:configuration", a
    local CSV, JSONL, Parquet or SQuAD-format JSON file, or a folder with a train and a test file. A single file is
    split 3 : 1, all questions of a text on one side. `train_rows` and `test_rows` take a subset, evenly over the
    topics, drawn with `seed`. Where a dataset accepts several answers to a question, a column `answers` lists them all
    and `answer` is the first. `test_source` takes the test rows from another dataset: its test or validation split, or
    all of a single file.

    Example: load_qa("bundled", test_source="google/xquad:xquad.ro")["test"][0]["answers"]
    """
    for name, count in (("train_rows", train_rows), ("test_rows", test_rows)):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ValueError(f"{name} is {count!r}; expected a whole number above 0, or None for all rows.")
    splits = _splits(source)
    if "all" in splits:
        splits = _divided(_checked(splits["all"], source), seed)
    origins = {"train": source, "test": test_source or source}
    if test_source:
        other = _splits(test_source)
        splits["test"] = next((other[name] for name in ("test", "validation", "all") if name in other), [])
    if missing := [split for split in ("train", "test") if split not in splits]:
        raise ValueError(f"{source} has no split {missing}; found {list(splits)}.")
    taken = {"train": train_rows, "test": test_rows}
    data = DatasetDict()
    for split, origin in origins.items():
        rows = _checked(splits[split], f"{origin}, {split}")
        data[split] = Dataset.from_list(take_evenly(rows, taken[split], seed))
        path = Path(origin).expanduser()
        data[split].info.dataset_name = HUB_DATASET if origin == "hub" else path.name if path.exists() else origin
    return data


def draw_examples(rows: Iterable[dict], count: int, seed: int = 0) -> list[dict]:
    """Return `count` rows about separate texts, drawn with the seed; fewer are the first of more.

    Example: len(draw_examples(data["train"], 3)) -> 3
    """
    rows = list(rows) if count else []
    random.Random(seed).shuffle(rows)
    separate = list({row["text"]: row for row in rows}.values())
    if len(separate) < count:
        raise ValueError(f"{count} examples were asked for; the training rows hold {len(separate)} separate texts.")
    return separate[:count]


def fingerprint(data: DatasetDict) -> str:
    """Return 12 hex digits that change when any text, question or answer of either split changes, or their order.

    Example: fingerprint(load_qa("bundled")) == fingerprint(load_qa("bundled")) -> True
    """
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for row in data[split]:
            said = [row["answer"], *([row["answers"]] if "answers" in row else [])]
            digest.update(json.dumps([split, row["text"], row["question"], *said]).encode())
    return digest.hexdigest()[:12]


def take_evenly(rows: list[dict], count: int | None, seed: int = 0) -> list[dict]:
    """Return `count` rows, the same number from every topic as far as that goes, in a seeded order; None takes all.

    Example: [r["topic"] for r in take_evenly(rows_of_topics_a_a_a_b, 2)] holds one "a" and one "b"
    """
    if count is None or count >= len(rows):
        return rows
    draw, groups = random.Random(seed), defaultdict(list)
    for row in rows:
        groups[row.get("topic") or row["source"]].append(row)
    for group in groups.values():
        draw.shuffle(group)
    topics = list(groups)
    draw.shuffle(topics)  # where the count does not reach every topic, or leaves a rest, chance decides which
    rounds = [
        groups[topic][i] for i in range(max(map(len, groups.values()))) for topic in topics if i < len(groups[topic])
    ]
    return rounds[:count]


def _splits(source: str) -> dict[str, list[dict]]:
    path = Path(source).expanduser()
    if source == "bundled":
        return {split: _read(BUNDLED / f"{split}.jsonl") for split in ("train", "test")}
    if path.suffix in SUFFIXES or path.exists():
        return _read_local(path)
    if source == "hub" or re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", source):
        return _read_hub(HUB_DATASET if source == "hub" else source)
    raise ValueError(
        f"Unknown dataset {source!r}; expected 'bundled', 'hub', a Hub id 'owner/name', or a file ending in "
        f"{', '.join(SUFFIXES)}."
    )


def _read_hub(name: str) -> dict[str, list[dict]]:
    advice = "Check the name and the network, or use source='bundled', which comes with this repository."
    if not hub_reachable():
        raise ConnectionError(f"The Hugging Face Hub, which holds {name}, cannot be reached. {advice}")
    try:
        data = load_dataset(*name.split(":"))
    except Exception as error:  # datasets and huggingface_hub raise many kinds; each means: not to be had
        why = (str(error).strip() or "no details").splitlines()[0]
        raise ConnectionError(
            f"The dataset {name} could not be loaded: {type(error).__name__}: {why} {advice}"
        ) from None
    return {split: _from_squad(rows.to_list()) for split, rows in data.items()}


def _from_squad(rows: list[dict]) -> list[dict]:
    if not rows or "context" not in rows[0] or not isinstance(rows[0].get("answers"), dict):
        return rows  # not the form that SQuAD has on the Hub
    return [
        {"text": row["context"], "question": row["question"], "answer": answers[0], "answers": answers}
        for row in rows if (answers := row["answers"]["text"])
    ]  # fmt: skip


def _read_local(path: Path) -> dict[str, list[dict]]:
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}.")
    if path.is_dir():
        files = {s: [path / f"{s}{x}" for x in SUFFIXES if (path / f"{s}{x}").exists()] for s in ("train", "test")}
        if not all(files.values()):
            raise FileNotFoundError(f"{path} holds no train and test file ending in {', '.join(SUFFIXES)}.")
        return {split: _read(found[0]) for split, found in files.items()}
    return {"all": _read(path)}


def _divided(rows: list[dict], seed: int) -> dict[str, list[dict]]:
    texts = sorted({row["text"] for row in rows})
    random.Random(seed).shuffle(texts)
    test = set(texts[: max(1, round(TEST_SHARE * len(texts)))]) if len(texts) > 1 else set()
    return {"train": [r for r in rows if r["text"] not in test], "test": [r for r in rows if r["text"] in test]}


def _read(path: Path) -> list[dict]:
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
        if path.suffix == ".parquet":
            return pd.read_parquet(path).to_dict("records")
        content = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in content.splitlines() if line.strip()]
        return _squad_rows(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        expected = "SQuAD format (data, paragraphs, qas)" if path.suffix == ".json" else f"a {path.suffix} table"
        raise ValueError(f"{path} cannot be read as {expected}: {type(error).__name__}: {error}") from None


def _squad_rows(content: dict | list) -> list[dict]:
    if isinstance(content, list):
        return content  # a plain JSON list of rows
    return [
        {"text": p["context"], "question": qa["question"], "answers": [one["text"] for one in qa["answers"]],
         "answer": qa["answers"][0]["text"], "source": a.get("title", "")}
        for a in content["data"] for p in a["paragraphs"] for qa in p["qas"] if qa["answers"]
    ]  # fmt: skip


def _checked(rows: list[dict], where: str) -> list[dict]:
    if not rows:
        raise ValueError(f"{where} has no rows.")
    if not isinstance(rows[0], dict):
        raise ValueError(
            f"{where} holds {type(rows[0]).__name__} items; expected rows with the columns {list(COLUMNS)}."
        )
    missing = [column for column in COLUMNS[:3] if any(column not in row for row in rows)]
    if missing:
        raise ValueError(f"{where} lacks the column {missing}; found {sorted(rows[0])}, expected {list(COLUMNS)}.")
    extra = [column for column in ("topic", "phase", "answers") if all(column in row for row in rows)]
    shaped = [{c: row.get(c) for c in (*COLUMNS, *extra)} for row in rows]
    for index, row in enumerate(shaped):
        row["source"] = row["source"] or ""
        wrong = [c for c in COLUMNS if not isinstance(row[c], str)]
        if wrong or not (row["text"].strip() and row["question"].strip() and row["answer"].strip()):
            raise ValueError(
                f"{where}: row {index} cannot be used: text, question and answer must be text that is not empty; "
                f"found { ({c: row[c] for c in wrong or COLUMNS[:3]})!r:.200}."
            )
        if "answers" in extra:
            several = [row["answer"]] if row["answers"] is None else row["answers"]
            if isinstance(several, str | float | int) or not all(isinstance(a, str) and a.strip() for a in several):
                raise ValueError(f"{where}: row {index}: answers is {several!r:.200}; expected a list of texts.")
            row["answers"] = list(dict.fromkeys([row["answer"], *several]))
    return shaped
