"""How far simple rules get on the rows: candidates of the asked kind, and always taking one of them."""

import json
import random
import re
import sys
from pathlib import Path

_WORD_NUMBERS = (
    "unu doi două trei patru cinci șase șapte opt nouă zece unsprezece doisprezece douăsprezece treisprezece paisprezece "
    "cincisprezece șaisprezece șaptesprezece optsprezece nouăsprezece douăzeci treizeci patruzeci cincizeci șaizeci "
    "șaptezeci optzeci nouăzeci"
).split()
_MONTHS = "ianuarie februarie martie aprilie mai iunie iulie august septembrie octombrie noiembrie decembrie".split()
_MONTH = "(?:" + "|".join(_MONTHS) + ")"
_NUMBER = re.compile(
    rf"\b(?:(?:\d{{1,2}} )?{_MONTH} \d{{4}}|\d{{1,2}} {_MONTH}|\d+(?:[.,:]\d+)*|(?:{'|'.join(_WORD_NUMBERS)}))\b"
)
_CAPITAL = r"[A-ZĂÂÎȘȚÉÖÜŠŽČ]"
_PART = rf"(?:{_CAPITAL}\.|{_CAPITAL}[\w’'-]*)"
_NAME = re.compile(rf"\b{_PART}(?:(?: (?:de|din|lui|al|cel|cea|the|von|van))? {_PART})*")
_FIRST = re.compile(r"(?:^|[.!?…:]”? )„?$")


def _spans(text: str, numbers: bool) -> list[tuple[int, int]]:
    found = []
    for match in (_NUMBER if numbers else _NAME).finditer(text):
        start, end = match.span()
        opens = _FIRST.search(text[:start]) and not re.search(r"\b[A-Z]\.$", text[: max(start - 1, 0)])
        if not numbers and opens and " " not in match.group():  # a capital that the sentence alone explains
            continue
        found.append((start, end))
    return found


def candidates(row: dict) -> list[str]:
    """Return the spans of the text that are of the answer's kind, in the order of the text; [] where it has no kind.

    Example: candidates({"text": "Născut în 1850, a murit în 1889.", "answer": "1889", ...}) -> ["1850", "1889"]
    """
    return [row["text"][start:end] for start, end in _located(row)]


def _located(row: dict) -> list[tuple[int, int]]:
    text, answer = row["text"], row["answer"]
    begin = text.find(answer)
    gold = (begin, begin + len(answer))
    if _NUMBER.match(answer):
        numbers = True
    elif re.match(_CAPITAL, answer):
        numbers = False
    else:
        return []
    others = [span for span in _spans(text, numbers) if span[1] <= gold[0] or span[0] >= gold[1]]
    return sorted([*others, gold])


def _nearest(row: dict, spans: list[tuple[int, int]]) -> str:
    tokens = [(m.start(), m.group().casefold()) for m in re.finditer(r"\w+", row["text"])]
    asked = {word for word in re.findall(r"\w+", row["question"].casefold()) if len(word) > 3}

    def distance(span):
        inside = [i for i, (at, _) in enumerate(tokens) if span[0] <= at < span[1]]
        hits = [i for i, (at, word) in enumerate(tokens) if word in asked and not span[0] <= at < span[1]]
        return min((abs(i - j) for i in inside for j in hits), default=len(tokens))

    start, end = min(spans, key=distance)
    return row["text"][start:end]


def floors(rows: list[dict]) -> dict:
    """Return the exact match of taking the first, last, a random or the nearest candidate, and where answers stand.

    first, last, random, nearest are shares of all rows; several counts the rows with two or more candidates; two_first
    and two_second say where the gold stands in rows with exactly two; thirds are the shares of answers by third of text.

    Example: floors(rows)["thirds"] -> [0.3, 0.35, 0.35]
    """
    draw = random.Random(0)
    right = dict.fromkeys(("first", "last", "random", "nearest"), 0)
    several, two, thirds = 0, [0, 0], [0, 0, 0]
    for row in rows:
        text, answer = row["text"], row["answer"]
        thirds[min(2, 3 * text.find(answer) // len(text))] += 1
        spans = _located(row)
        if not spans:
            continue
        said = [text[start:end] for start, end in spans]
        several += len(said) > 1
        if len(said) == 2:
            two[said.index(answer)] += 1
        picks = {"first": said[0], "last": said[-1], "random": draw.choice(said), "nearest": _nearest(row, spans)}
        for name, pick in picks.items():
            right[name] += pick == answer
    out = {name: round(count / len(rows), 3) for name, count in right.items()}
    out |= {"several": several, "two_first": two[0], "two_second": two[1]}
    return out | {"thirds": [round(count / len(rows), 3) for count in thirds]}


if __name__ == "__main__":
    for name in sys.argv[1:] or ["train.jsonl", "test.jsonl"]:
        read = [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]
        print(name, floors(read))
