"""Question-answering rows from the Hub, the bundled set or a local file, all in one shape."""

import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset

from utils.data.files import ENDINGS, EXPECTED, TEST_NAMES, kind, read_splits
from utils.data.shape import check_columns, checked
from utils.environment import hub_reachable
from utils.paper import HUB_DATASET

BUNDLED = Path(__file__).parent / "bundled"
TEST_SHARE = 0.25  # the paper's 200 of 800, for a file that comes without a split


def load_qa(
    source: str,
    train_rows: int | None = None,
    test_rows: int | None = None,
    seed: int = 0,
    test_source: str | None = None,
    columns: dict[str, str] | None = None,
) -> DatasetDict:
    """Return `train` and `test` rows with the columns text, question, answer and source (topic, phase where known).

    `source` is "bundled", "hub" (the paper's dataset), another Hub id "owner/name" or "owner/name:configuration", a
    local CSV, TSV, JSONL, Parquet or SQuAD-format JSON file (gzipped or not), or a folder with a train and a test file.
    What comes without a test split is split 3 : 1, all questions of a text on one side. `train_rows` and `test_rows`
    take a subset, evenly over the topics, drawn with `seed`. `test_source` takes the test rows from another dataset:
    its test or validation split, or all of a single file; "bundled-more" is the second bundled test set. `columns`
    says how either calls a column that has a name of its own: {"text": "Epicriza"}. Where several answers are accepted,
    a column `answers` lists them and `answer` is the first. What cannot be read as rows is a ValueError that says why.
    Example: load_qa("bundled", test_source="google/xquad:xquad.ro")["test"][0]["answers"]
    """
    for name, count in (("train_rows", train_rows), ("test_rows", test_rows)):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ValueError(f"{name} is {count!r}; expected a whole number above 0, or None for all rows.")
    columns, source = columns or {}, str(source)
    found = _splits(source)
    other = _splits(str(test_source)) if test_source else None
    check_columns(columns, [*found.values(), *(other or {}).values()])
    if "all" in found:
        found = _divided(checked(found["all"], source, columns), source, seed)
        print(f"{source} has no test split: {len(found['test'])} rows are kept out of training.")
    elif missing := {"train", "test"} - {*found, *(["test"] if test_source else [])}:
        raise ValueError(
            f"{source} has no split called {' or '.join(sorted(missing))}; found {list(found)}, expected "
            "train and test: name rows to train on as source and rows to test on as test_source."
        )
    else:
        wanted = ("train",) if test_source else ("train", "test")
        found = {split: checked(found[split], f"{source}, {split}", columns) for split in wanted}
    if test_source:
        if not (name := next((name for name in ("test", "all") if name in other), None)):
            raise ValueError(f"{test_source} has the splits {list(other)}; expected a test split in a test_source.")
        found["test"] = checked(other[name], f"{test_source}, {name}", columns)
    data = DatasetDict()
    for split, origin, count in (("train", source, train_rows), ("test", str(test_source or source), test_rows)):
        data[split] = Dataset.from_list(take_evenly(found[split], count, seed))
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
    rounds = zip_longest(*(groups[topic] for topic in topics))
    return [row for turn in rounds for row in turn if row is not None][:count]


def _splits(source: str) -> dict[str, list]:
    path = Path(source).expanduser()
    if source == "bundled":
        return read_splits(BUNDLED)
    if source == "bundled-more":
        return {"test": read_splits(BUNDLED / "test_more.jsonl")["all"]}
    if kind(path) in EXPECTED or path.exists():
        return _named_splits(read_splits(path))
    if source == "hub" or re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", source):
        return _named_splits(_read_hub(HUB_DATASET if source == "hub" else source))
    raise ValueError(
        f"Unknown dataset {source!r}; expected as source 'bundled', 'hub', a Hub id 'owner/name', or a "
        f"file or folder that is there, its name ending in {ENDINGS}."
    )


def _read_hub(name: str) -> dict[str, list]:
    advice = "Check the name and the network, or use source='bundled' (DATASET in a notebook), which comes with this repository."
    if not hub_reachable():
        raise ConnectionError(f"The Hugging Face Hub, which holds {name}, cannot be reached. {advice}")
    try:
        return {split: rows.to_list() for split, rows in load_dataset(*name.split(":")).items()}
    except Exception as error:  # datasets and huggingface_hub raise many kinds; each means: not to be had
        why = (str(error).strip() or "no details").splitlines()[0]
        raise ConnectionError(
            f"The dataset {name} could not be loaded: {type(error).__name__}: {why} A configuration "
            f"is named as source='owner/name:configuration'. {advice}"
        ) from None


def _named_splits(found: dict[str, list]) -> dict[str, list]:
    # A single split is all there is, whatever it is called; of several, Test, dev or validation are what to test on.
    if len(found) == 1:
        return {"all": next(iter(found.values()))}
    splits = {split.strip().lower(): rows for split, rows in found.items()}
    name = next((name for name in TEST_NAMES if name in splits), "test")
    return {"test" if split == name else split: rows for split, rows in splits.items()}


def _divided(rows: list[dict], where: str, seed: int) -> dict[str, list[dict]]:
    texts = sorted({row["text"] for row in rows})
    if len(texts) == 1:
        raise ValueError(f"{where} has a single text; expected two or more as source, one for train and one for test.")
    random.Random(seed).shuffle(texts)
    test = set(texts[: max(1, round(TEST_SHARE * len(texts)))])
    return {"train": [r for r in rows if r["text"] not in test], "test": [r for r in rows if r["text"] in test]}
