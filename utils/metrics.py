"""Exact match and token F1 under three normalisations: how strict a comparison is decides what is measured."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

NORMS = ("strict", "squad", "ro")
FAILURES = (
    "unanswered",
    "punctuation or case only",
    "diacritics only",
    "verbose",
    "partial",
    "wrong span of the text",
    "not in the text",
)


def exact_match(prediction: str | None, reference: str | Sequence[str], norm: str = "strict") -> float:
    """Return 1.0 where prediction and reference are the same after normalisation, else 0.0 (paper, section 4).

    `norm` is "strict" (the extracted string as it is), "squad" (SQuAD v1.1's official normalisation) or "ro"
    (`normalize` tells what each does). A prediction of None, no answer, scores 0.0. Where a question has several
    references, the best of them counts, as in SQuAD.

    Example: exact_match("Pleşuv.", "pleșuv", norm="ro") -> 1.0
    """
    if prediction is None:
        return 0.0
    return float(normalize(prediction, norm) in {normalize(r, norm) for r in _each(reference)})


def token_f1(prediction: str | None, reference: str | Sequence[str], norm: str = "strict") -> float:
    """Return the harmonic mean of token precision and recall, 0.0 to 1.0 (paper, section 4).

    Tokens are split at white space and compared as multisets, so a word said twice counts twice. Of several
    references the best counts.

    Example: token_f1("Vulturul pleșuv", "pleșuv") -> 0.667
    """
    if prediction is None:
        return 0.0
    predicted, best = normalize(prediction, norm).split(), 0.0
    for one in _each(reference):
        expected = normalize(one, norm).split()
        if shared := sum((Counter(predicted) & Counter(expected)).values()):
            precision, recall = shared / len(predicted), shared / len(expected)
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


def score(predictions: Sequence[str | None], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """Return the means of both metrics under all three norms, with `n` and the count of `unanswered` rows.

    Keys: em_strict, f1_strict, em_squad, f1_squad, em_ro, f1_ro, unanswered, n.

    Example: score(["1872", None], ["1872", "Iași"])["em_strict"] -> 0.5
    """
    if len(predictions) != len(references):
        raise ValueError(f"Found {len(predictions)} predictions for {len(references)} references; expected one each.")
    if not references:
        raise ValueError("There is nothing to score: no predictions and no references.")
    pairs, n = list(zip(predictions, references, strict=True)), len(references)
    means = {}
    for norm in NORMS:
        means[f"em_{norm}"] = sum(exact_match(p, r, norm) for p, r in pairs) / n
        means[f"f1_{norm}"] = sum(token_f1(p, r, norm) for p, r in pairs) / n
    return {**means, "unanswered": sum(p is None for p in predictions), "n": n}


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


def normalize(answer: str, norm: str) -> str:
    """Return the form of an answer that is compared.

    strict: surrounding white space removed, nothing else: what the paper's formulas see.
    squad: lower case, ASCII punctuation and the English articles a, an, the removed, white space collapsed, as
        the official SQuAD v1.1 script does. On Romanian it takes "un an" for "un", which is why "ro" exists.
    ro: NFC, casefold, cedilla ş ţ as comma-below ș ț, every Unicode punctuation mark removed, white space
        collapsed; an answer of nothing but punctuation is kept as it is.

    Example: normalize("„Luceafărul”,  1883.", "ro") -> "luceafărul 1883"
    """
    if norm == "strict":
        return answer.strip()
    if norm == "squad":
        kept = "".join(c for c in answer.lower() if c not in string.punctuation)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())
    if norm == "ro":
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", answer).casefold())
        folded = folded.replace("ş", "ș").replace("ţ", "ț")
        kept = "".join(c for c in folded if not unicodedata.category(c).startswith("P"))
        kept = " ".join(unicodedata.normalize("NFC", kept).split())
        return kept or " ".join(folded.split())
    raise ValueError(f"Unknown norm {norm!r}; expected one of {NORMS}.")


def _each(reference: str | Sequence[str]) -> Sequence[str]:
    references = [reference] if isinstance(reference, str) else reference
    if len(references) == 0:
        raise ValueError("There is no reference to compare with; expected one or more.")
    return references


def _unpunctuated(text: str) -> str:
    return " ".join("".join(c for c in text.casefold() if not unicodedata.category(c).startswith("P")).split())


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFD", normalize(text, "ro"))
    return unicodedata.normalize("NFC", "".join(c for c in letters if not unicodedata.combining(c)))


def _holds(whole: str, part: str) -> bool:
    return part != "" and f" {part} " in f" {whole} "
