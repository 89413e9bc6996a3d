"""Base models and tokenizers, and the adapters that go on top of them."""

from utils.models.access import describe_download
from utils.models.adapter import add_lora, llama_3b_on_meta, lora_config, remove_lora
from utils.models.base import held_base, load_base, load_tokenizer, release_base
from utils.models.embedded import load_llama3_tokenizer
from utils.paper import trainable_parameters

__all__ = ["add_lora", "describe_download", "held_base", "llama_3b_on_meta", "load_base", "load_llama3_tokenizer",
           "load_tokenizer", "lora_config", "release_base", "remove_lora", "trainable_parameters"]  # fmt: skip
