"""From a model's name to a folder in the hub's layout, with safetensors weights and a tokenizer.json.

Needs neither torch nor transformers unless a folder has to be converted: `.bin` weights (read with
`weights_only=True`, so that no code in them runs) or a tokenizer without tokenizer.json.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from edgeicl.errors import DataError
from edgeicl.kept import kept
from edgeicl.specs.local_path import local_path
from edgeicl.specs.model_name import is_local
from edgeicl.store import digest_of, file_sha256

log = logging.getLogger(__name__)

CONVERTED = "converted"
"""Folder of the cache for the copies that had to be made."""
BUILTIN = Path(__file__).parent / "builtin"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
MODEL_CARD = "README.md"
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", MODEL_CARD]


def model_folder(name: str, *, base_folder: Path | None = None) -> Path:
    """The folder of `name`: `builtin:NAME`, a local folder (relative to `base_folder`), or a name on the hub.

    What the folder lacks (safetensors, tokenizer.json) is made in a copy in the cache.

    Raises:
        DataError: an unknown built-in model, a folder that holds no model, a hub that can't be reached.
    """
    if name.startswith("builtin:"):
        return _builtin(name.removeprefix("builtin:"))
    local = _local(name, base_folder)
    if local.is_dir():
        return _complete(local)
    if is_local(name):
        raise DataError(f"model {name}: found no folder {local}", next_step="check the path of the model")
    return _complete(_downloaded(name))


def is_on_hub(name: str, *, base_folder: Path | None = None) -> bool:
    """Whether `model_folder` takes `name` for one on the hub."""
    return not name.startswith("builtin:") and not _local(name, base_folder).is_dir()


def weights_digest(folder: Path) -> str:
    """Digest of all that decides what the model computes: configuration, weights, tokenizer."""
    files = [folder / "config.json", *weight_files(folder), *(folder / name for name in TOKENIZER_FILES)]
    return digest_of({path.name: file_sha256(path) for path in files if path.is_file()})


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder."""
    return sorted(folder.glob("*.safetensors"))


def model_config(folder: Path) -> dict[str, Any]:
    """The contents of config.json."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: config.json can't be read: {error}") from error
    return config


def parameter_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every stored weight, read from the headers of the safetensors files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        header.pop("__metadata__", None)
        shapes |= {name: tuple(entry["shape"]) for name, entry in header.items()}
    return shapes


def _local(name: str, base_folder: Path | None) -> Path:
    return local_path(name, base_folder or Path())


def _builtin(name: str) -> Path:
    known = sorted(path.name for path in BUILTIN.iterdir() if path.is_dir()) if BUILTIN.is_dir() else []
    if name not in known:
        raise DataError(
            f"builtin:{name}: found no such built-in model; expected one of {', '.join(known) or 'none'}"
        )
    return BUILTIN / name


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=_HUB_FILES))
        if not weight_files(folder):
            folder = Path(snapshot_download(name, allow_patterns=[*_HUB_FILES, "pytorch_model*.bin"]))
    except Exception as error:  # network, name and permission errors of several libraries, one advice
        raise DataError(
            f"model {name} can't be had from the hub: "
            f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}",
            next_step="check name and network, or download the model elsewhere and give the path of its folder",
        ) from error
    return folder


def _complete(folder: Path) -> Path:
    """`folder` itself, or its converted copy in the cache."""
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: found no config.json; expected a model in the hub's layout")
    binaries = [] if weight_files(folder) else sorted(folder.glob("pytorch_model*.bin"))
    if not binaries and not weight_files(folder):
        raise DataError(f"{folder}: found no weights; expected *.safetensors or pytorch_model*.bin")
    if not binaries and (folder / "tokenizer.json").is_file():
        return folder
    sources = [folder / "config.json", *binaries, *weight_files(folder)]
    sources += [folder / name for name in (*TOKENIZER_FILES, MODEL_CARD)]
    hashes = {path.name: file_sha256(path) for path in sources if path.is_file()}

    def make(destination: Path) -> dict[str, dict[str, str]]:
        _convert(folder, binaries, destination)
        return {"sources": hashes}

    final = kept(CONVERTED, hashes, make)
    log.info("%s: using its converted copy %s", folder, final)
    return final


def _convert(folder: Path, binaries: list[Path], destination: Path) -> None:
    from edgeicl.models.conversion import binaries_to_safetensors, fast_tokenizer

    names = ["config.json", "generation_config.json", "model.safetensors.index.json", MODEL_CARD]
    names += TOKENIZER_FILES
    for source in (folder / name for name in names):
        if source.is_file():
            shutil.copyfile(source, destination / source.name)
    if binaries:
        binaries_to_safetensors(binaries, destination / "model.safetensors")
    for weights in weight_files(folder):
        (destination / weights.name).symlink_to(weights.resolve())
    if not (folder / "tokenizer.json").is_file():
        fast_tokenizer(folder).save(str(destination / "tokenizer.json"))
