"""Question-answering rows from the Hub, the bundled set or a local file, all in one shape."""

import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset

from utils.data.files import SUFFIXES, is_data_file, read_rows
from utils.data.shape import checked
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
    What comes without a test split is split 3 : 1, all questions of a text on one side. `columns` names the columns that
    hold text, question, answer and source where they are called otherwise: {"text": "Epicriza"}. `train_rows` and `test_rows` take a subset, evenly over the
    topics, drawn with `seed`. Where a dataset accepts several answers to a question, a column `answers` lists them all
    and `answer` is the first. `test_source` takes the test rows from another dataset: its test or validation split, or
    all of a single file; "bundled-more" is the second bundled test set, where it is there.

    Example: load_qa("bundled", test_source="google/xquad:xquad.ro")["test"][0]["answers"]
    """
    for name, count in (("train_rows", train_rows), ("test_rows", test_rows)):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ValueError(f"{name} is {count!r}; expected a whole number above 0, or None for all rows.")
    splits = _splits(source)
    if "all" in splits or (len(splits) == 1 and not test_source):
        splits = _divided(checked(next(iter(splits.values())), source, columns), seed)
    origins = {"train": source, "test": test_source or source}
    if test_source:
        other = _splits(test_source)
        splits["test"] = next((other[name] for name in ("test", "validation", "all") if name in other), [])
    if missing := [split for split in ("train", "test") if split not in splits]:
        raise ValueError(f"{source} has no split {missing}; found {list(splits)}.")
    taken = {"train": train_rows, "test": test_rows}
    data = DatasetDict()
    for split, origin in origins.items():
        rows = checked(splits[split], f"{origin}, {split}", columns)
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
        return {split: read_rows(BUNDLED / f"{split}.jsonl") for split in ("train", "test")}
    if source == "bundled-more" and (BUNDLED / "test_more.jsonl").exists():
        return {"test": read_rows(BUNDLED / "test_more.jsonl")}
    if is_data_file(path) or path.exists():
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
    return _named_splits({split: rows.to_list() for split, rows in data.items()})


def _named_splits(found: dict[str, list[dict]]) -> dict[str, list[dict]]:
    # Hub sets call their splits Train, dev or validation, or have one alone.
    splits = {split.strip().lower(): rows for split, rows in found.items()}
    if "test" not in splits:
        other = next((splits.pop(name) for name in ("validation", "valid", "dev") if name in splits), None)
        if other is not None:
            splits["test"] = other
    if len(splits) == 1 and "test" not in splits:
        return {"all": next(iter(splits.values()))}
    return splits


def _read_local(path: Path) -> dict[str, list[dict]]:
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}.")
    if path.is_dir():
        files = {s: [path / f"{s}{x}" for x in SUFFIXES if (path / f"{s}{x}").exists()] for s in ("train", "test")}
        if not all(files.values()):
            raise FileNotFoundError(f"{path} holds no train and test file ending in {', '.join(SUFFIXES)}.")
        return {split: read_rows(found[0]) for split, found in files.items()}
    return {"all": read_rows(path)}


def _divided(rows: list[dict], seed: int) -> dict[str, list[dict]]:
    texts = sorted({row["text"] for row in rows})
    random.Random(seed).shuffle(texts)
    test = set(texts[: max(1, round(TEST_SHARE * len(texts)))]) if len(texts) > 1 else set()
    return {"train": [r for r in rows if r["text"] not in test], "test": [r for r in rows if r["text"] in test]}
