import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.prompt import build_completion, build_prompt, extract_answer

LINES = st.text(st.characters(codec="utf-8"), max_size=40)
ANSWERS = LINES.filter(lambda s: s.strip() and not set(s) & set("\r\n"))


def test_the_prompt_is_three_labelled_lines_and_ends_without_a_space():
    assert build_prompt("Dunărea curge.", "Ce curge?") == "Context: Dunărea curge.\nQuestion: Ce curge?\nAnswer:"
    assert build_prompt("a", "b", language="ro") == "Context: a\nÎntrebare: b\nRăspuns:"


def test_examples_come_first_with_their_answers():
    example = {"text": "a\nb", "question": "c", "answer": "d", "source": ""}
    assert build_prompt("e", "f", examples=[example]) == (
        "Context: a b\nQuestion: c\nAnswer: d\n\nContext: e\nQuestion: f\nAnswer:"
    )
    assert build_prompt("e", "f", "ro", [example] * 3).count("Răspuns:") == 4


def test_line_breaks_in_a_row_do_not_break_the_prompt():
    assert build_prompt(" a\n\n b\r\nc ", "d\n?") == "Context: a b c\nQuestion: d ?\nAnswer:"


def test_an_unknown_language_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'fr'.*\['en', 'ro'\]"):
        build_prompt("a", "b", language="fr")


@pytest.mark.parametrize(
    ("generation", "answer"),
    [
        (" pleșuv", "pleșuv"),
        (" pleșuv\nQuestion: Ce?\nAnswer: altul", "pleșuv"),  # what the model invents later never counts
        ("\n pleșuv", None),  # nothing stands before the first newline
        ("   ", None),
        ("", None),
        (" a\r\nb", "a"),
        (" Answer: a", "Answer: a"),  # no echoed prompt, so the label is part of what was written
        ("Context: t\nQuestion: q\nAnswer: a\nAnswer: b", "a"),
        ("Context: spune Answer: fals\nQuestion: q Answer: fals\nAnswer: a", "a"),
        ("Context: t\nÎntrebare: q\nRăspuns: a\nQuestion: x\nAnswer: b", "a"),
        ("Context: t\nQuestion: q\nAnswer:", None),
        ("Context: t\nQuestion: q", None),  # cut before its answer line
        (" Context: ceva", "Context: ceva"),  # an answer that begins with a word, no echo: there is no question line
        (" Context: ceva\nQuestion", "Context: ceva"),
    ],
)
def test_the_answer_is_taken_out_of_what_the_model_wrote(generation, answer):
    assert extract_answer(generation) == answer


@given(ANSWERS)
def test_extraction_undoes_completion(answer):
    assert extract_answer(build_completion(answer)) == answer.strip()


@given(LINES, LINES, ANSWERS, LINES, st.sampled_from(["en", "ro"]))
def test_extraction_finds_the_answer_in_an_echoed_prompt(text, question, answer, rest, language):
    echoed = build_prompt(text, question, language) + build_completion(answer) + "\n" + rest
    assert extract_answer(echoed) == answer.strip()


WRITTEN = st.lists(
    st.sampled_from(["Context:", "Question:", "Answer:", "Întrebare:", "Răspuns:", " ", "\n", "\r", "\u2028", "ceva"])
    | LINES
).map("".join)


@settings(max_examples=1000)
@given(WRITTEN)
def test_whatever_a_model_writes_is_an_answer_of_one_line_or_none(generation):
    answer = extract_answer(generation)
    assert answer is None or (answer and answer == answer.strip() and not set(answer) & set("\r\n"))
    assert answer is None or answer in generation
