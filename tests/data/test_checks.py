import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from utils.data import load_qa, validate_qa
from utils.data import rows as data_module
from utils.data.checks import answer_kind, words

GOOD = {
    "text": "Poetul Mihai Eminescu s-a născut în anul 1850 la Botoșani și a murit în 1889 la București.",
    "question": "În ce an s-a născut poetul?",
    "answer": "1850",
    "source": "",
}
OTHER = {
    **GOOD,
    "text": "Compozitorul George Enescu s-a stins din viață în anul 1955, departe de țară, într-un hotel din Paris.",
}


def rules(train, test=(OTHER,)):
    found = validate_qa(DatasetDict(train=Dataset.from_list(list(train)), test=Dataset.from_list(list(test))))
    return {(row.level, row.rule) for row in found[found["split"] != "test"].itertuples()} | {
        (row.level, row.rule) for row in found[found["rule"].str.startswith("leak")].itertuples()
    }


def test_the_bundled_rows_pass_every_rule():
    found = validate_qa(load_qa("bundled"))
    assert found.empty, found.to_string()


def test_a_good_row_passes():
    assert rules([GOOD]) == set()


@pytest.mark.parametrize(
    ("change", "level", "rule"),
    [
        ({"text": ""}, "error", "empty text"),
        ({"question": " "}, "error", "empty question"),
        ({"answer": ""}, "error", "empty answer"),
        ({"text": GOOD["text"].replace("ș", "ş")}, "warning", "cedilla instead of comma below"),
        ({"text": GOOD["text"].replace("ș", "s\u0326")}, "warning", "not NFC"),
        ({"answer": "1851"}, "warning", "answer is not in the text"),
        ({"question": "Ce s-a întâmplat în 1850?"}, "warning", "question gives the answer away"),
        ({"question": "Spune anul."}, "warning", "question does not end in ?"),
        ({"text": "Eminescu s-a născut în 1850."}, "warning", "text length is not 12 to 70 words"),
        ({"text": GOOD["text"] + " cuvânt" * 60}, "warning", "text length is not 12 to 70 words"),
        ({"text": GOOD["text"] + " A scris. A trăit. A iubit."}, "warning", "text is not 1 to 3 sentences"),
        ({"answer": GOOD["text"][7:]}, "warning", "answer is over 12 words"),
    ],
)
def test_each_rule_finds_its_row(change, level, rule):
    assert rules([{**GOOD, **change}]) == {(level, rule)}


def test_rules_over_several_rows():
    assert rules([GOOD, GOOD]) == {("warning", "duplicate row")}
    four = [{**GOOD, "question": f"Întrebarea {letter} despre an?"} for letter in "abcd"]
    assert rules(four) == {("warning", "text with more than 3 questions")}
    assert rules([GOOD], [GOOD]) == {("warning", "leak: test text is in train")}
    assert rules([GOOD], [{**GOOD, "text": GOOD["text"].replace("1889", "1890")}]) == {
        ("warning", "leak: nearly a train text")
    }


def test_one_opening_for_too_many_questions():
    letters = [f"{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
    texts = [f"{GOOD['text'][:-1]} {letter}." for letter in letters]
    mixed = [
        {**GOOD, "text": t, "question": f"{letter} ce an scrie?"} for t, letter in zip(texts, letters, strict=True)
    ]
    assert rules(mixed) == set()
    same = [{**row, "question": f"În ce an anume {i}?"} if i < 5 else row for i, row in enumerate(mixed)]
    assert rules(same) == {("warning", "opening in over 4 % of questions")}  # 5 of 100


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("În ce an a murit?", "1889", "number"),
        ("Câte capete are?", "trei capete", "number"),
        ("Cine a scris?", "Ion Creangă", "person"),
        ("Cui i-a scris?", "Veronicăi Micle", "person"),
        ("Unde s-a născut?", "Botoșani", "place"),
        ("În ce oraș a murit?", "București", "place"),
        ("Ce a scris?", "Luceafărul", "phrase"),
        ("De ce a plecat?", "pentru că nu mai avea bani", "long"),
    ],
)
def test_answer_kind(question, answer, kind):
    assert answer_kind(question, answer) == kind


def test_words_keep_hyphens_and_decimals():
    assert words("S-a născut în 1850, la 2.544 m.") == ["S-a", "născut", "în", "1850", "la", "2.544", "m"]


def test_bundled_answers_are_mixed_and_no_text_is_in_both_splits():
    files = [
        Path(data_module.BUNDLED / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        for split in ("train", "test")
    ]
    rows = [json.loads(line) for file in files for line in file]
    kinds = [answer_kind(row["question"], row["answer"]) for row in rows]
    assert 0.20 <= kinds.count("number") / 800 <= 0.30
    assert 0.08 <= kinds.count("long") / 800 <= 0.15
    assert len({json.loads(line)["text"] for line in files[0]} & {json.loads(line)["text"] for line in files[1]}) == 0


HIDDEN, WRONG_A = "character that cannot be seen", "ǎ or ã written for ă"


@pytest.mark.parametrize(
    "letter", ["\u00ad", "\u200b", "\u200d", "\ufeff", "\u2060", "\u00a0", "\u202f", "\u2007", "\u2028", "\u0085"]
)
@pytest.mark.parametrize("column", ["text", "question", "answer"])
def test_what_cannot_be_seen_is_found(letter, column):
    row = {**GOOD, column: GOOD[column][:2] + letter + GOOD[column][2:]}
    found = validate_qa(DatasetDict(train=Dataset.from_list([row])))
    assert f"{column}: U+{ord(letter):04X}" in list(found["found"][found["rule"] == HIDDEN])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Merge cǎtre casă", "cǎtre"),
        ("Bǎlți", "Bǎlți"),
        ("a mers ca\u030ctre casă", "cǎtre"),  # the same letter in two signs
        ("Merge cãtre casã", "cãtre, casã"),
        ("țarã și mânã", "țarã, mânã"),
        ("Brãila și Bacãu, cãtre seară", "Brãila, Bacãu, cãtre"),  # capitals, in company
        ("Constanţã", "Constanţã"),  # a capital beside ţ
        ("pão și tãișul", "tãișul"),
        ("CĂTRE șİ ÎNTÂIÃ", "ÎNTÂIÃ"),
        ("São Paulo, João, Guimarães, mãe și irmão", None),  # Portuguese ão and ãe
        ("maçã, manhã și Magalhães", None),  # ç, nh, lh
        ("Stadionul Maracanã din Rio", None),  # a capital alone
        ("Lǎozǐ și Hǎinán", None),  # pinyin, which has other tones beside ǎ
        ("mère, ñandú, Dvořák", None),
    ],
)
def test_an_a_of_another_language_is_no_romanian_letter(text, wrong):
    row = {"text": f"{text} este aici.", "question": "Ce este aici?", "answer": "aici", "source": ""}
    found = validate_qa(DatasetDict(train=Dataset.from_list([row])))
    assert list(found["found"][found["rule"] == WRONG_A]) == ([f"text: {wrong}"] if wrong else [])


SENTENCE = "Poetul a scris multe pagini despre țara lui în anii aceia de la început și a plecat apoi."  # 18 words


@pytest.mark.parametrize(
    ("row", "sentences", "rules"),
    [
        ({}, 2, set()),
        ({"topic": "t", "phase": 1}, 2, set()),
        ({"phase": None}, 2, set()),  # no topic: not ours
        ({"topic": "t", "phase": None}, 2, {"text length is not 60 to 140 words", "text is not 3 to 6 sentences"}),
        ({"topic": "t", "phase": None}, 4, set()),  # 72 words
        ({"topic": "t", "phase": None}, 7, {"text is not 3 to 6 sentences"}),  # 126 words
        ({"topic": "t", "phase": None}, 8, {"text length is not 60 to 140 words", "text is not 3 to 6 sentences"}),
        ({"topic": "t", "phase": 2}, 4, {"text length is not 12 to 70 words", "text is not 1 to 3 sentences"}),
    ],
)
def test_each_test_set_has_its_own_lengths(row, sentences, rules):
    assert len(words(SENTENCE)) == 18
    text = " ".join([SENTENCE] * sentences)
    row = {"text": text, "question": "Ce a scris?", "answer": "multe pagini", "source": "", **row}
    assert set(validate_qa(DatasetDict(train=Dataset.from_list([row])))["rule"]) == rules


@pytest.mark.parametrize("answers", [["1851"], ["1850", ""], []])
def test_answers_that_lack_the_answer_or_hold_an_empty_one_are_an_error(answers):
    found = validate_qa(
        DatasetDict(
            train=Dataset.from_list([OTHER | {"answers": ["1955"], "answer": "1955"}, GOOD | {"answers": answers}])
        )
    )
    assert [(f.level, f.rule, f.row) for f in found.itertuples()] == [
        ("error", "answers lacks the answer or holds an empty one", 1)
    ]
