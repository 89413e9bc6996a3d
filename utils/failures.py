"""In what way an answer is wrong, and which characters make three norms disagree about it. Needs no torch."""

import difflib
import unicodedata
from collections.abc import Sequence

import pandas as pd

from utils.metrics import NORMS, exact_match, normalize

KINDS = (
    "unanswered",
    "punctuation or case only",
    "diacritics only",
    "verbose",
    "partial",
    "wrong span of the text",
    "not in the text",
)


def failure_kind(prediction: str | None, references: str | Sequence[str], text: str) -> str | None:
    """Return None where the prediction is right by the strict norm, else the first of these that holds.

    unanswered: there is no answer. punctuation or case only: right once both are ignored. diacritics only: right once
    marks on letters are ignored too (cedilla for comma, a missing breve). The rest compares words as "diacritics
    only" does. verbose: holds a whole reference and more. partial: shares a word of four letters, or a number, with
    one ("de" alone is no overlap). wrong span of the text: stands in the text word for word. not in the text: none of
    these.

    Example: failure_kind("Vulturul pleşuv", "vulturul pleșuv", "Vulturul pleșuv zboară.") -> "diacritics only"
    """
    references = [references] if isinstance(references, str) else references
    if prediction is None:
        return "unanswered"
    if exact_match(prediction, references):
        return None
    if _unpunctuated(prediction) in map(_unpunctuated, references):
        return "punctuation or case only"
    said, expected = _plain(prediction), [_plain(reference) for reference in references]
    if said in expected:
        return "diacritics only"
    if any(_holds(said, reference) for reference in expected):
        return "verbose"
    words = {word for word in said.split() if len(word) > 3 or any(c.isdigit() for c in word)}
    if any(words & set(reference.split()) for reference in expected):
        return "partial"
    return "wrong span of the text" if _holds(_plain(text), said) else "not in the text"


def failure_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return how many answers of each run are right and how many wrong in each way, a row a run (its run_id).

    Example: failure_counts(load_records(folder))["verbose"].sum()
    """
    kinds = [[p.get("failure", "not recorded") or "right" for p in record["predictions"]] for record in frame["record"]]
    columns = ["right", *KINDS, *(["not recorded"] if any("not recorded" in run for run in kinds) else [])]
    return pd.DataFrame([{c: run.count(c) for c in columns} for run in kinds], index=frame["run_id"], columns=columns)


def why_it_changed(record: dict) -> pd.DataFrame:
    """Return the predictions that are right by one norm and wrong by another, with the characters that did it.

    A row each: question, answer, reference (the nearest), 1 or 0 under each norm, and what separates the two.

    Example: why_it_changed(record)["characters"].tolist() -> ["ş U+015F for ș U+0219", ". added"]
    """
    rows = []
    for p in record["predictions"]:
        references = p.get("references", [p["reference"]])
        verdicts = {norm: int(exact_match(p["answer"], references, norm)) for norm in NORMS}
        if len(set(verdicts.values())) > 1:
            # Among several references the one that the most norms accept, then the most alike.
            nearest = max(
                references,
                key=lambda r: (sum(exact_match(p["answer"], r, n) for n in NORMS), _likeness(p["answer"], r)),
            )
            found = {"question": p["question"], "answer": p["answer"], "reference": nearest}
            rows.append(found | verdicts | {"characters": _difference(p["answer"], nearest)})
    return pd.DataFrame(rows, columns=["question", "answer", "reference", *NORMS, "characters"])


def _unpunctuated(text: str) -> str:
    return " ".join("".join(c for c in text.casefold() if not unicodedata.category(c).startswith("P")).split())


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFD", normalize(text, "ro"))
    return unicodedata.normalize("NFC", "".join(c for c in letters if not unicodedata.combining(c)))


def _holds(whole: str, part: str) -> bool:
    return part != "" and f" {part} " in f" {whole} "


def _likeness(answer: str, reference: str) -> float:
    return difflib.SequenceMatcher(None, reference, answer, autojunk=False).ratio()


def _difference(answer: str, reference: str) -> str:
    said = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, reference, answer, autojunk=False).get_opcodes():
        was, now = _named(reference[i:j]), _named(answer[k:m])
        said += {
            "equal": [],
            "insert": [f"{now} added"],
            "delete": [f"{was} missing"],
            "replace": [f"{now} for {was}"],
        }[kind]
    return ", ".join(said)


def _named(part: str) -> str:
    # Letters that look alike need their code point to be told apart.
    return f"{part} U+{ord(part):04X}" if len(part) == 1 and ord(part) > 127 else repr(part) if " " in part else part
