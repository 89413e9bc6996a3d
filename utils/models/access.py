"""A Hub repository in; whether it answers, whether this user may have it, and which commit it has, out."""

import huggingface_hub
from huggingface_hub import HfApi, errors

from utils.environment import hub_reachable


def check_access(repository: str, revision: str | None = None) -> None:
    """Raise an error that says what to click where the model cannot be had; return at once where it can.

    The token is taken the way huggingface_hub takes it (the environment's HF_TOKEN, a Colab secret of that name, a
    login) and is never shown. A model that is in the cache needs neither a token nor a network.

    Example: check_access("meta-llama/Llama-3.2-3B") raises PermissionError where no token is set
    """
    page = f"{huggingface_hub.constants.ENDPOINT}/{repository}"
    if not hub_reachable():
        if isinstance(huggingface_hub.try_to_load_from_cache(repository, "config.json", revision=revision), str):
            return
        raise ConnectionError(
            f"No network: the Hub, which holds {repository}, cannot be reached, and no copy is in the cache. Check the "
            "connection, or take a model that needs none: MODEL = 'gemma-3-270m', or a folder of your own."
        )
    try:
        HfApi().auth_check(repository)
    except errors.GatedRepoError:
        if huggingface_hub.get_token() is None:
            raise PermissionError(
                f"No token: {repository} is gated. 1. Accept its licence on {page}. 2. Make a token that can read at "
                f"{huggingface_hub.constants.ENDPOINT}/settings/tokens. 3. In Colab click the key on the left, add it as "
                "the secret HF_TOKEN and allow this notebook; elsewhere run 'hf auth login'. 4. Run this cell again. "
                "Or name an ungated copy: MODEL = 'unsloth/Llama-3.2-3B'."
            ) from None
        raise PermissionError(
            f"A token without access: your account may not read {repository} yet. Accept the licence on {page} with the "
            "account that the token belongs to, wait for the mail that grants it, and check that the token may read gated "
            "repositories. Or name an ungated copy: MODEL = 'unsloth/Llama-3.2-3B'."
        ) from None
    except errors.RepositoryNotFoundError:
        raise ValueError(
            f"The Hub has no model {repository}, or it is private and your token may not read it."
        ) from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no status")
        raise ConnectionError(
            f"The Hub refused {repository} with status {status}: try again, or check the token."
        ) from None


def hub_revision(repository: str, revision: str | None = None) -> str | None:
    """Return the commit that the Hub has of a repository (of its branch, tag or commit `revision`), None where it does not say.

    Example: hub_revision("meta-llama/Llama-3.2-3B") -> forty hex digits
    """
    try:
        return HfApi().model_info(repository, revision=revision, timeout=10).sha
    except Exception:  # whatever keeps the Hub from telling it, loading will meet it and say it better
        return None


def download_size(repository: str) -> int | None:
    """Return the bytes of the files that loading a model fetches, None where the Hub does not say.

    Example: download_size("unsloth/Llama-3.2-3B") / 1e9 -> 6.4
    """
    try:
        files = HfApi().model_info(repository, files_metadata=True, timeout=10).siblings
    except Exception:
        return None
    return sum(file.size or 0 for file in files if file.rfilename.endswith((".safetensors", ".json")))
