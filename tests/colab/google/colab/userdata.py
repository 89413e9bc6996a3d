"""The stand-in's secrets: HF_TOKEN is what COLAB_SECRET holds; with "refused" this notebook may not read it."""

import os


class NotebookAccessError(Exception):
    """The user did not let this notebook read the secret."""


class SecretNotFoundError(Exception):
    """There is no such secret."""


class TimeoutException(Exception):
    """Nobody answered the question whether it may be read."""


def get(name):
    """Return a secret as Colab does, or raise as Colab does."""
    held = os.environ.get("COLAB_SECRET")
    if held == "refused":
        raise NotebookAccessError(name)
    if held is None:
        raise SecretNotFoundError(name)
    return held
