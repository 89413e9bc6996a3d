"""Rows as they came in, rows with our columns out, or a sentence that says what is wrong."""

COLUMNS = ("text", "question", "answer", "source")
OTHER_NAMES = {
    "text": ("context", "paragraph", "passage", "document", "pasaj", "paragraf", "articol"),
    "question": ("query", "intrebare", "întrebare", "q"), "answer": ("response", "target", "raspuns", "răspuns", "a"),
    "source": ("title", "url", "sursa", "sursă"),
}  # fmt: skip
MOST_EMPTY = 0.05  # of the rows: above it an empty answer is no slip, and the column is the wrong one


def checked(rows: list[dict], where: str, columns: dict[str, str] | None = None) -> list[dict]:
    """Return the rows with our columns; what cannot be used is an error that names the row and what mends it.

    Example: checked([{"context": "a", "question": "b", "answer": 7}], "rows.json")[0]["answer"] -> "7"
    """
    if not rows:
        raise ValueError(f"{where} has no rows.")
    if foreign := [row for row in rows if not isinstance(row, dict)]:
        kind = type(foreign[0]).__name__
        raise ValueError(f"{where} holds {kind} items; expected rows with the columns {list(COLUMNS)}.")
    rows = [_renamed(row, columns or {}) for row in rows]
    if missing := [column for column in COLUMNS[:3] if not any(column in row for row in rows)]:
        names = sorted({str(name) for row in rows[:100] for name in row})
        left = [name for name in names if name not in COLUMNS]
        guess = ", ".join(f'"{column}": "{name}"' for column, name in zip(missing, [*left, *["..."] * 3], strict=False))
        raise ValueError(
            f"{where} lacks the column {missing}; found {names}, expected {list(COLUMNS)}. Say which is which: "
            f"load_qa(..., columns={{{guess}}})."
        )
    several = any(row.get("answers") is not None for row in rows)
    extra = [column for column in ("topic", "phase") if all(column in row for row in rows)]
    shaped, empty = [], []
    for index, row in enumerate(rows):
        one = {c: _text(row.get(c), f"{where}: row {index}, column {c}") for c in COLUMNS} | {c: row[c] for c in extra}
        if several:
            given = row.get("answers")
            accepted = [one["answer"] or "-"] if given is None else given
            if isinstance(accepted, str | float | int) or not all(isinstance(a, str) and a.strip() for a in accepted):
                raise ValueError(f"{where}: row {index}: answers is {accepted!r:.200}; expected a list of texts.")
            if "topic" in extra and one["answer"] not in accepted:
                raise ValueError(f"{where}: row {index}: answers {list(accepted)} lacks the answer {one['answer']!r}.")
            one["answers"] = list(dict.fromkeys([one["answer"], *accepted])) if given is not None else [one["answer"]]
        if one["answer"].strip():
            shaped.append(one)
        else:
            empty.append(index)
        if not (one["text"].strip() and one["question"].strip()):
            raise ValueError(
                f"{where}: row {index} cannot be used: text and question must not be empty; found {one!r:.200}."
            )
    if empty and ((len(empty) > max(1, MOST_EMPTY * len(rows)) and "answers" not in rows[empty[0]]) or not shaped):
        raise ValueError(
            f"{where}: {len(empty)} of {len(rows)} answers are empty, the first in row {empty[0]}; expected texts."
        )
    if empty:
        print(
            f"{where}: {len(empty)} of {len(rows)} rows have no answer and are left out, the first is row {empty[0]}."
        )
    return shaped


def _renamed(row: dict, columns: dict[str, str]) -> dict:
    given = {name: column for column, name in columns.items()}
    known = {other: column for column, others in OTHER_NAMES.items() for other in others}
    found = {}
    for name, value in row.items():
        plain = str(name).strip().lower()
        target = given.get(name) or given.get(str(name).strip()) or (plain if plain in (*COLUMNS, "answers") else None)
        target = target or (known.get(plain) if plain in known and known[plain] not in map(_plain, row) else None)
        found[target or name] = value
    answers = found.get("answers")
    if isinstance(answers, dict):  # the Hub's SQuAD form
        answers = [str(text) for text in answers.get("text", [])]
        found |= {"answers": answers or None, "answer": answers[0] if answers else ""}
    elif isinstance(answers, list) and answers and all(isinstance(one, dict) for one in answers):
        texts = [str(one.get("text", "")) for one in answers]
        found |= {"answers": texts, "answer": found.get("answer") or texts[0]}
    elif hasattr(answers, "tolist"):
        found["answers"] = answers.tolist()
    elif isinstance(answers, list) and not answers:
        found |= {"answers": None, "answer": found.get("answer") or ""}
    return found


def _plain(name) -> str:
    return str(name).strip().lower()


def _text(value, where: str) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)  # a year read as a number
    raise ValueError(f"{where} is {value!r:.100}; expected a text.")
