"""Numbers of a model's configuration, whatever its architecture calls them."""

from __future__ import annotations

from pathlib import Path

from edgeicl.errors import DataError


def config_number(folder: Path, key: str) -> int:
    """A number of the model's configuration, by the name that transformers has for it.

    Architectures write it under names of their own (GPT-2: `n_positions`) and leave out their defaults.

    Raises:
        DataError: an unknown architecture, or one that has no such number.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: config.json can't be used: {error}") from error
    number = getattr(config, key, None)
    if not isinstance(number, int):
        raise DataError(f"{folder}: config.json ({config.model_type}) has no {key}; expected a whole number")
    return number
