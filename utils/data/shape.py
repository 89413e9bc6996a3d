"""Raw rows in, rows with the columns text, question, answer and source out, or one sentence that says what is missing."""

import math
from collections.abc import Iterable

COLUMNS = ("text", "question", "answer", "source")
OTHER_NAMES = {"text": ("context", "paragraph", "passage", "document", "pasaj", "paragraf", "articol"),
               "question": ("query", "intrebare", "întrebare", "q"),
               "answer": ("response", "target", "raspuns", "răspuns", "a"),
               "source": ("title", "url", "sursa", "sursă")}  # fmt: skip
NAMEABLE = (*COLUMNS, "answers")
MOST_CHARACTERS = 50_000  # some 15,000 tokens: attention over more of them fills any machine this is made for
MOST_EMPTY = 0.05  # of the rows: above it an empty answer is no slip, and the column is the wrong one


def check_columns(columns: dict[str, str], sets: Iterable[list]) -> None:
    """Raise a ValueError where `columns` names what is no column of ours, or none of any of the sets."""
    if strange := [column for column in columns if column not in NAMEABLE]:
        raise ValueError(f"columns has the key {strange[0]!r}; expected one of {list(NAMEABLE)}.")
    found = sorted({str(name) for rows in sets for row in rows if isinstance(row, dict) for name in row})
    for column, name in columns.items():
        if _plain(name) not in map(_plain, found):
            raise ValueError(f"columns names {name!r} for {column}; found {found!r:.400}, expected one of these.")


def checked(rows: list, where: str, columns: dict[str, str]) -> list[dict]:
    """Return the rows with text, question, answer, source, and topic, phase and answers where they have them.

    Rows without an answer are left out and counted in a printed line; more than 5 % of them are an error, unless they
    are questions that their dataset marks as impossible.
    Example: checked([{"context": "Ana are mere.", "Question ": "Cine?", "answers": {"text": ["Ana"]}}], "a.json", {})
    """
    if not rows:
        raise ValueError(f"{where} has no rows; expected some with the columns {list(COLUMNS)}: name another source.")
    if foreign := [type(row).__name__ for row in rows if not isinstance(row, dict)]:
        raise ValueError(f"{where} holds {foreign[0]} items; expected as source rows with {COLUMNS[:3]}.")
    named = [_named(row, columns) for row in rows]
    known = {column for row in named for column in row}
    if missing := [c for c in COLUMNS[:3] if c not in known and (c != "answer" or "answers" not in known)]:
        raise ValueError(_what_is_missing(rows, missing, where))
    extra = [column for column in ("topic", "phase") if all(column in row for row in named)]
    phases = [row.get("phase") for row in named]
    whole = all(phase is None or (type(phase) is int and abs(phase) < 2**31) for phase in phases)
    kept, empty, impossible = [], [], []
    for index, row in enumerate(named):
        at = f"{where}: row {index}"
        one = {column: _text(row.get(column), f"{at}, column {column}") for column in COLUMNS}
        accepted = _accepted(row, at)
        one["answer"] = one["answer"] or (accepted or [""])[0]
        marked = str(row.get("is_impossible")).lower() == "true"
        if marked or not one["answer"]:
            listed = row.get("answers") is not None or ("answers" in known and "answer" not in row)
            (impossible if marked or listed else empty).append(index)
            continue
        if hollow := [column for column in ("text", "question") if not one[column]]:
            raise ValueError(f"{at} has an empty {hollow[0]}; expected a text: mend it, or name the column by columns.")
        for column in extra:
            one[column] = row[column] if column == "phase" and whole else _text(row[column], f"{at}, column {column}")
        if "answers" in known:
            # Ours (they have topics) promise to list the answer; other people's lists are only given it first.
            if accepted and "topic" in extra and (own := one["answer"]) not in accepted:
                raise ValueError(f"{at}: answers {accepted!r:.200} lacks the answer {own!r}; expected it there.")
            one["answers"] = list(dict.fromkeys([one["answer"], *accepted]))
        kept.append(one)
    if not kept or len(empty) > MOST_EMPTY * len(rows):
        found = empty or impossible
        raise ValueError(
            f"{where}: {len(found)} of {len(rows)} answers are empty, the first in row {found[0]}; "
            "expected texts: is the answer in another column, say so by columns."
        )
    for left_out, what in ((empty, "rows have an empty answer"), (impossible, "questions have no answer in the text")):
        if left_out:
            print(f"{where}: {len(left_out)} of {len(rows)} {what} and are left out, the first is row {left_out[0]}.")
    return kept


def _plain(name) -> str:
    return str(name).strip().lower()


def _named(row: dict, columns: dict[str, str]) -> dict:
    names = {_plain(name): name for name in reversed(list(row))} | {name: name for name in row}
    given, found = set(map(_plain, columns.values())), {}
    for column in (*NAMEABLE, "topic", "phase", "is_impossible"):
        candidates = [name for name in (column, *OTHER_NAMES.get(column, ())) if name not in given]
        if column in columns:
            candidates = [columns[column], _plain(columns[column]), *candidates]
        if (name := next((name for name in candidates if name in names), None)) is not None:
            found[column] = row[names[name]]
    return found


def _what_is_missing(rows: list[dict], missing: list[str], where: str) -> str:
    found = list(dict.fromkeys(str(name) for row in rows[:100] for name in row))
    filled = ", ".join(f'"{column}": "..."' for column in missing)
    return (
        f"{where} lacks the columns {missing}; found {found!r:.400}, expected {list(COLUMNS)}: say which is which "
        f"by load_qa(..., columns={{{filled}}})."
    )


def _accepted(row: dict, at: str) -> list[str]:
    given = row.get("answers")
    texts = given.get("text") or [] if isinstance(given, dict) else given  # the Hub's SQuAD form holds a list of them
    if isinstance(texts, str) and (texts is not given or ("answer" not in row and texts[:1] not in ("[", "{"))):
        texts = [texts]  # a column that is called answers and holds one
    if texts is None:
        return []
    if not isinstance(texts, list):
        raise ValueError(f"{at}: answers is {given!r:.200}; expected a list of texts, or columns that name another.")
    texts = [_text(one.get("text") if isinstance(one, dict) else one, f"{at}, column answers") for one in texts]
    if any(texts) and not all(texts):
        raise ValueError(f"{at}: answers {given!r:.200} holds an empty one; expected texts, so take it out.")
    return [text for text in texts if text]


def _text(value, at: str) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(int(value)) if value == int(value) else repr(float(value))  # a year that was read as 1850.0
    if not isinstance(value, str):
        raise ValueError(f"{at} is {value!r:.100}; expected a text: name another column by columns.")
    if len(value) > MOST_CHARACTERS:
        most = f"expected at most {MOST_CHARACTERS:,}: shorten it or take the row out."
        raise ValueError(f"{at} has {len(value):,} characters; {most}")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{at} holds half a character ({value!a:.100}); expected whole ones, so mend the row.")
    return value.strip()
