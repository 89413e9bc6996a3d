"""What can be wrong with question-answering rows, checked by rule, and what kind of answer a row asks for."""

import re
import unicodedata
from collections import Counter

import pandas as pd
from datasets import DatasetDict


def words(text: str) -> list[str]:
    """Return the words of a text, hyphenated forms and decimal numbers as one.

    Example: words("S-a născut în 1850, la Botoșani.") -> ["S-a", "născut", "în", "1850", "la", "Botoșani"]
    """
    return re.findall(r"\w+(?:[-'’.,]\w+)*", text)


def answer_kind(question: str, answer: str) -> str:
    """Return what sort of answer it is: long (5 words or more), number, person, place or phrase; a rule of thumb.

    Digits, number words and the question's first words decide, so it works for any dataset; on the bundled rows it
    agrees with the hand-given kind in about three cases of four.
    Example: answer_kind("În ce an a murit?", "1889") -> "number"
    """
    asked, said = question.casefold(), answer.casefold()
    if len(answer.split()) >= 5:
        return "long"
    counted = re.match(r"(în|din|de la)?\s*(câ[tț]|când)", asked)
    if counted or re.search(r"\d", said) or said.split()[0] in _NUMBER_WORDS:
        return "number"
    if re.search(r"\b(cine|cui|a cui|al cui)\b", asked):
        return "person"
    return "place" if re.search(rf"\b(unde|încotro|(ce|care)\s+({_PLACES}))\b", asked) else "phrase"


def validate_qa(data: DatasetDict) -> pd.DataFrame:
    """Return what is wrong with a dataset, one line a finding: level, rule, split, row (its index), found.

    An "error" cannot be used; a "warning" can, and may lower scores or make them look better than they are: letters
    with a cedilla, text that is not NFC, an answer that the text does not hold or the question gives away, unusual
    lengths, duplicates, one opening for too many questions, and test texts that training has seen (leaks).
    Example: validate_qa(load_qa("bundled")).empty -> True
    """
    found = []
    for split, rows in data.items():
        for index, row in enumerate(rows):
            found += [(level, rule, split, index, what) for level, rule, what in _row_findings(row)]
        asked = Counter((row["text"], row["question"]) for row in rows)
        texts = Counter(row["text"] for row in rows)
        openings = Counter(" ".join(words(row["question"])[:4]).casefold() for row in rows)
        often = [("duplicate row", question) for (_, question), n in asked.items() if n > 1]
        often += [("text with more than 3 questions", f"{n}: {text[:60]}") for text, n in texts.items() if n > 3]
        most = 0.04 * len(rows) if len(rows) >= 100 else len(rows)
        often += [("opening in over 4 % of questions", f"{n}: {start}") for start, n in openings.items() if n > most]
        found += [("warning", rule, split, None, what) for rule, what in often]
    return pd.DataFrame([*found, *_leaks(data)], columns=["level", "rule", "split", "row", "found"])


def _row_findings(row: dict):
    text, question, answer = row["text"], row["question"], row["answer"]
    alone = not any(_is_wrong_a(word) for word in _row_words(f"{text} {question} {answer}"))
    for name in ("text", "question", "answer"):
        value = row[name]
        if not value.strip():
            yield "error", f"empty {name}", ""
        hidden = {f"U+{ord(c):04X}" for c in value if c not in " \t\r\n" and unicodedata.category(c) in _HIDDEN}
        letters = {"cedilla instead of comma below": sorted(set(value) & set("şţŞŢ")),
                   "character that cannot be seen": sorted(hidden),
                   "ǎ or ã written for ă": [word for word in _row_words(value) if _is_wrong_a(word, alone)][:5],
                   "not NFC": [value[:60]] if unicodedata.normalize("NFC", value) != value else []}  # fmt: skip
        yield from (("warning", rule, f"{name}: {', '.join(found)}") for rule, found in letters.items() if found)
    if not (text.strip() and question.strip() and answer.strip()):
        return
    # The second test set's rows have a topic and belong to no phase of the paper; its texts are longer.
    low, high, fewest, most = (60, 140, 3, 6) if "topic" in row and row.get("phase", 1) is None else (12, 70, 1, 3)
    length, sentences = len(words(text)), 1 + len(re.findall(_SENTENCE_END, text))
    away = re.search(rf"(?<!\w){re.escape(answer.casefold())}(?!\w)", question.casefold())
    rules = (("answer is not in the text", answer not in text, answer),
             ("question gives the answer away", away, answer),
             ("question does not end in ?", not question.rstrip().endswith("?"), question),
             (f"text length is not {low} to {high} words", not low <= length <= high, str(length)),
             (f"text is not {fewest} to {most} sentences", not fewest <= sentences <= most, text),
             ("answer is over 12 words", len(answer.split()) > 12, answer))  # fmt: skip
    yield from (("warning", rule, found) for rule, broken, found in rules if broken)
    if (answers := row.get("answers")) is not None and (answer not in answers or not all(answers)):
        yield "error", "answers lacks the answer or holds an empty one", str(answers)


def _row_words(value: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFC", value))


def _is_wrong_a(word: str, alone: bool = True) -> bool:
    # Pinyin (Lǎozǐ) has more tones than one, Portuguese (São, mãe, maçã) its ão and ãe and letters of its own. A capital
    # opens too many names (Maracanã) to tell: such a word is wrong beside ț, or where another of the row surely is.
    plain = word.casefold()
    if "ǎ" in plain:
        return not set(plain) & set("āēīōūàèìòùǐǒǔěáéíóú")
    if "ã" not in plain or re.search(r"ã[oe]|[çõ]|[nl]h", plain):
        return "ã" in plain and bool(set(plain) & set("ăîșțşţ"))
    return bool(set(plain) & set("ăâîșțşţ")) or not (word[0].isupper() and alone)


def _leaks(data: DatasetDict):
    train = {row["text"]: _trigrams(row["text"]) for row in data.get("train", ())}
    for index, row in enumerate(data.get("test", ())):
        own, same = _trigrams(row["text"]), row["text"] in train
        likeness = [len(own & other) / len(own | other) for other in train.values() if own | other]
        if same or max(likeness, default=0) >= 0.5:
            rule = "leak: test text is in train" if same else "leak: nearly a train text"
            what = f"{max(likeness, default=1):.2f} of the trigrams (Jaccard): {row['text'][:60]}"
            yield "warning", rule, "test", index, what


def _trigrams(text: str) -> set[tuple[str, ...]]:
    said = [word.casefold() for word in words(text)]
    return set(zip(said, said[1:], said[2:], strict=False))


# Soft hyphens, zero-width and control characters, line separators, and every space but the one that everybody types.
_HIDDEN = ("Cf", "Cc", "Zl", "Zp", "Zs")
# A full stop after one or two letters is an initial or an abbreviation ("W. B. Yeats", "St. Petersburg").
_SENTENCE_END = r"(?<!\b\w)(?<!\b\w\w)[.!?…]”?\s+(?=[A-ZĂÂÎȘȚ„])"
_PLACES = ("oraș|orașul|țară|țara|stat|localitate|sat|comună|munte|vârf|lac|râu|insulă|județ|capitală|regiune|provincie"
           "|continent|cartier|masiv|mare")  # fmt: skip
_NUMBER_WORDS = frozenset((
    "un o unu una doi două trei patru cinci șase șapte opt nouă zece unsprezece doisprezece douăsprezece treisprezece "
    "paisprezece cincisprezece șaisprezece șaptesprezece optsprezece nouăsprezece douăzeci treizeci patruzeci "
    "cincizeci șaizeci șaptezeci optzeci nouăzeci sute mii zeci").split())  # fmt: skip
