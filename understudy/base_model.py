"""Base models: where one lies, and the hash that says which weights an adapter was trained on.

Trainer and server resolve and hash a base by this one module, so that a student never meets a base
that merely has the same name. Loads no weights; a hub name is fetched by `huggingface_hub`.
"""

import hashlib
import importlib.util
from pathlib import Path

from understudy.errors import TrainingError


def find_base(name: str) -> Path:
    """The folder of a base: `builtin` (shipped with the trainer), a folder, or a hub name."""
    if name == "builtin":
        return _checked(_builtin(), "run `understudy base build`")
    if Path(name).is_dir():
        return _checked(Path(name), "name a folder with config.json and *.safetensors")
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise TrainingError(
            f"no base model {name!r}: give `builtin`, a folder, or a hub name like org/name"
        )
    return _checked(_from_hub(name), "choose a base whose weights are *.safetensors")


def base_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of the folder's `*.safetensors`, in order of name."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name}:{content}\n".encode())
    return total.hexdigest()


def _builtin() -> Path:
    spec = importlib.util.find_spec("trainer")  # finds the installed folder without importing it
    if spec is None or not spec.submodule_search_locations:
        raise TrainingError("the built-in base is not installed; install understudy[trainer]")
    return Path(spec.submodule_search_locations[0]) / "base" / "model"


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"fetching base {name!r} needs {error.name}; install understudy[trainer]"
        ) from error
    patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise TrainingError(
            f"cannot fetch base {name!r}: {str(error).splitlines()[0]}; name a folder instead"
        ) from error


def _checked(folder: Path, remedy: str) -> Path:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise TrainingError(f"{folder} holds no base model; {remedy}")
    return folder
