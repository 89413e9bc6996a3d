"""The stand-in's errors."""


class Error(Exception):
    """What huggingface_hub takes for Colab's own error."""
