"""The prompt the model reads, and its inverse: the answer in what the model wrote (paper, section 3)."""

import re
from collections.abc import Iterable

LABELS = {"en": ("Context:", "Question:", "Answer:"), "ro": ("Context:", "Întrebare:", "Răspuns:")}


def build_prompt(text: str, question: str, language: str = "en", examples: Iterable[dict] = ()) -> str:
    """Return the three labelled lines that the model continues; ends in the answer label, no trailing space.

    Line breaks inside the text or the question become spaces, so a prompt always has exactly three lines and
    `extract_answer` can find its own answer line again. `language` is "en" (the paper's labels) or "ro". `examples`
    are rows with their answers, which come first in the same form, an empty line after each (few-shot).
    Example: build_prompt("Dunărea curge.", "Ce curge?") -> "Context: Dunărea curge.\\nQuestion: Ce curge?\\nAnswer:"
    """
    if language not in LABELS:
        raise ValueError(f"Unknown prompt language {language!r}; expected one of {sorted(LABELS)}.")
    context_label, question_label, answer_label = LABELS[language]
    solved = [build_prompt(e["text"], e["question"], language) + build_completion(e["answer"]) for e in examples]
    asked = f"{context_label} {_one_line(text)}\n{question_label} {_one_line(question)}\n{answer_label}"
    return "\n\n".join([*solved, asked])


def build_completion(answer: str) -> str:
    """Return what the model learns to write after the prompt: one space and the answer.

    Example: build_completion("Dunărea") -> " Dunărea"
    """
    return " " + _one_line(answer)


def extract_answer(generation: str) -> str | None:
    """Return the text before the first newline, stripped; None where nothing is left (paper, section 4).

    Where the model's output still begins with the prompt (decoded whole), the answer starts after that prompt's own
    answer label. An echo is known by its label and its question line, so an answer that begins with the word
    "Context:" stays one. Labels that the model goes on to invent on later lines never count.
    Example: extract_answer(" pleșuv\\nQuestion: Ce?\\nAnswer: altul") -> "pleșuv"
    """
    for context, question, answer in LABELS.values():
        if echo := re.match(rf"\s*{context}[^\n]*\n{question}[^\n]*(?:\n|$)(?P<label>{answer})?", generation):
            if echo["label"] is None:
                return None  # cut before its answer line
            generation = generation[echo.end() :]
            break
    return re.split(r"[\r\n]", generation, maxsplit=1)[0].strip() or None


def _one_line(text: str) -> str:
    return re.sub(r"\s*[\r\n]+\s*", " ", text.strip())
