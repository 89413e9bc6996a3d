"""Question-answering rows from anywhere in one shape, and what can be wrong with them."""

from utils.data.checks import answer_kind, validate_qa, words
from utils.data.rows import draw_examples, fingerprint, load_qa

__all__ = ["answer_kind", "draw_examples", "fingerprint", "load_qa", "validate_qa", "words"]
