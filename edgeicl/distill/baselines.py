"""The methods that context distillation is compared with: none of them changes what is deployed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from edgeicl.distill import evaluate as methods
from edgeicl.distill.checkpoint import is_kept
from edgeicl.distill.fine_tuning import fine_tune
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.predictions import (
    ONLY,
    Predictions,
    Predictor,
    keep_predictions,
    read_predictions,
    remembered,
)
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.tasks.example import Example


def untrained_predictions(
    reader: LabelReader,
    predictor: Predictor,
    *,
    zero_shot: str,
    in_context: str,
    contexts: Mapping[str, Sequence[int]],
    kept: Path,
) -> Predictions:
    """Predictions of a model as it is: without demonstrations, and after each of `contexts`.

    `zero_shot` and `in_context` name the two methods; what is done is kept in `kept`.
    """
    found = remembered(
        kept / f"{zero_shot}.safetensors",
        partial(predictor.predict, reader, zero_shot, ONLY, predictor.encoder.leading),
    )
    for name, before in contexts.items():
        found |= remembered(
            kept / f"{in_context} {name}.safetensors",
            partial(predictor.predict, reader, in_context, name, before),
        )
    return found


def fine_tuned_predictions(
    load_reader: Callable[[], LabelReader],
    predictor: Predictor,
    demonstrations: Mapping[str, Sequence[Example]],
    *,
    settings: TrainingSettings,
    seed: int,
    kept: Path,
    is_writer: bool,
) -> Predictions:
    """Predictions of a model fine-tuned on each demonstration set; all processes train, the writer predicts."""
    paths = {name: kept / f"tuned {name}.safetensors" for name in demonstrations}
    for name, shown in demonstrations.items():
        if is_kept(paths[name]):
            continue
        reader = load_reader()
        encoder = predictor.encoder
        fine_tune(
            reader,
            rows=encoder.prompts(shown),
            tokens=list(encoder.tokens.values()),
            gold=encoder.label_indices(shown),
            settings=settings,
            seed=seed,
            checkpoint_folder=kept / f"tuning {name}",
            description=f"fine-tuning, {name}",
        )
        if is_writer:
            found = predictor.predict(reader, methods.FINE_TUNING, name, encoder.leading)
            keep_predictions(paths[name], found)
    return {
        key: values for path in paths.values() if is_writer for key, values in read_predictions(path).items()
    }
