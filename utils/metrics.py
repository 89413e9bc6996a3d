"""Exact match and token F1 under three normalisations: how strict a comparison is decides what is measured."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

NORMS = ("strict", "squad", "ro")
_SAME_LETTER = str.maketrans("şţ", "șț")
_DASHES = "‐‑‒–—−-"  # the last, U+002D, stands where a character class takes it as itself
FAILURES = ("unanswered", "punctuation or case only", "diacritics only", "another accepted answer", "verbose", "partial",
            "wrong span of the text", "not in the text")  # fmt: skip


def exact_match(prediction: str | None, reference: str | Sequence[str], norm: str = "strict") -> float:
    """Return 1.0 where prediction and reference are the same after normalisation, else 0.0 (paper, section 4).

    `norm` is "strict" (the extracted string as it is), "squad" (SQuAD v1.1's official normalisation) or "ro"
    (`normalize` tells what each does). A prediction of None, no answer, scores 0.0. Of several accepted answers strict
    looks at the first alone, which is the row's own: the paper has one; the other two take the best.
    Example: exact_match("Pleşuv.", "pleșuv", norm="ro") -> 1.0
    """
    if prediction is None:
        return 0.0
    return float(normalize(prediction, norm) in {normalize(r, norm) for r in _accepted(reference, norm)})


def token_f1(prediction: str | None, reference: str | Sequence[str], norm: str = "strict") -> float:
    """Return the harmonic mean of token precision and recall, 0.0 to 1.0 (paper, section 4).

    Tokens are split at white space and compared as multisets, so a word said twice counts twice. Of several accepted
    answers the best counts, but for strict, as in `exact_match`.
    Example: token_f1("Vulturul pleșuv", "pleșuv") -> 0.667
    """
    if prediction is None:
        return 0.0
    predicted, best = normalize(prediction, norm).split(), 0.0
    for one in _accepted(reference, norm):
        expected = normalize(one, norm).split()
        if shared := sum((Counter(predicted) & Counter(expected)).values()):
            precision, recall = shared / len(predicted), shared / len(expected)
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


def contains(prediction: str | None, references: str | Sequence[str]) -> float:
    """Return 1.0 where an accepted answer stands in the prediction word for word under `ro`, else 0.0.

    What a model that talks too much still knew: form aside, was the answer there?
    Example: contains("Este vulturul pleșuv, desigur.", "vulturul pleșuv") -> 1.0
    """
    if prediction is None:
        return 0.0
    said = normalize(prediction, "ro")
    return float(any(_holds(said, normalize(one, "ro")) for one in _accepted(references, "ro")))


def score(predictions: Sequence[str | None], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """Return the means of both metrics under all three norms, with `n` and the count of `unanswered` rows.

    Keys: em_strict, f1_strict, em_squad, f1_squad, em_ro, f1_ro, contains, unanswered, n.
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
    means["contains"] = sum(contains(p, r) for p, r in pairs) / n
    return {**means, "unanswered": sum(p is None for p in predictions), "n": n}


def failure_kind(prediction: str | None, references: str | Sequence[str], text: str) -> str | None:
    """Return None where the prediction is right by the strict norm, else the first of these that holds.

    unanswered: there is no answer. punctuation or case only: right once both are ignored. diacritics only: right once
    marks on letters are ignored too (cedilla for comma, a missing breve). The rest compares words as "diacritics
    only" does. another accepted answer: one of the others, which strict does not look at. verbose: holds a whole
    reference and more. partial: shares a word of four letters, or a number, with one ("de" alone is no overlap). wrong
    span of the text: stands in the text word for word. not in the text: none of these.
    Example: failure_kind("Vulturul pleşuv", "vulturul pleșuv", "Vulturul pleșuv zboară.") -> "diacritics only"
    """
    references = [references] if isinstance(references, str) else references
    if prediction is None:
        return "unanswered"
    if exact_match(prediction, references):
        return None
    if _unpunctuated(prediction) == _unpunctuated(references[0]) and exact_match(prediction, references[:1], "ro"):
        return "punctuation or case only"
    said, expected = _plain(prediction), [_plain(reference) for reference in references]
    if said in expected:
        return "diacritics only" if said == expected[0] else "another accepted answer"
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
    ro: what a Romanian reader would take as the same. NFC; case folded; ş ţ as ș ț; soft hyphens and zero-width
        characters gone; every kind of space one space; quotation marks, brackets and sentence punctuation gone; a
        hyphen next to a letter is a space; î inside a word as â (Tîrgu, Târgu). Numbers keep their meaning: a decimal
        comma, a minus, a colon, slash or dash between digits, %, ‰, ′ or ″ after one count; a point between groups of
        three digits is a thousands mark and goes, any other stays. An answer of nothing but marks is kept as it is.
    Example: normalize("„Luceafărul”,  1883.", "ro") -> "luceafărul 1883"
    """
    if norm not in NORMS:
        raise ValueError(f"Unknown norm {norm!r}; expected one of {NORMS}.")
    if norm == "strict":
        return answer.strip()
    if norm == "squad":
        kept = "".join(c for c in answer.lower() if c not in string.punctuation)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", answer).casefold()).translate(_SAME_LETTER)
    folded = " ".join("".join(c for c in folded if unicodedata.category(c) != "Cf").split())  # Cf: what has no width
    kept = re.sub(r"(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3})+(?!\.?\d)", lambda m: m[0].replace(".", ""), folded)
    kept = re.sub(rf"(?<=\d)[{_DASHES}](?=\d)", "-", kept)  # 1914–1918 is 1914-1918
    kept = re.sub(r"(?<![^\s(\[{„“”\"«])[–−-](?=\d)", "−", kept)  # a minus sign, and not a hyphen
    kept = re.sub(rf"(?<=[^\W\d_])[{_DASHES}]|[{_DASHES}](?=[^\W\d_])", " ", kept)
    kept = re.sub(r"(?<=\d)\s+(?=[%‰′″])", "", kept)
    kept = "".join(c for i, c in enumerate(kept) if not unicodedata.category(c).startswith("P") or (kept[i - 1 : i].isdigit()
                   and (c in "%‰′″" or (c in ",.:/-" and kept[i + 1 : i + 2].isdigit()))))  # fmt: skip
    kept = re.sub(r"(?<=\w)î(?=\w)", "â", kept)
    return unicodedata.normalize("NFC", " ".join(kept.split())) or folded or answer.strip()


def _accepted(reference: str | Sequence[str], norm: str) -> Sequence[str]:
    references = [reference] if isinstance(reference, str) else reference
    if len(references) == 0:
        raise ValueError("There is no reference to compare with; expected one or more.")
    return references[:1] if norm == "strict" else references


def _unpunctuated(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFD", normalize(text, "ro"))
    return unicodedata.normalize("NFC", "".join(c for c in letters if not unicodedata.combining(c)))


def _holds(whole: str, part: str) -> bool:
    return part != "" and f" {part} " in f" {whole} "
