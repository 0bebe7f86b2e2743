"""What every method is compared with: none of it changes what is deployed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgeicl.checkpoint import is_kept
from edgeicl.distill import evaluate as methods
from edgeicl.distill.fine_tuning import fine_tune
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.predictions import (
    ONLY,
    Predictions,
    Predictor,
    keep_predictions,
    read_predictions,
)
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.store import ALONE, Workers
from edgeicl.tasks.example import Example


def untrained_predictions(
    reader: LabelReader,
    predictor: Predictor,
    *,
    zero_shot: str,
    in_context: str,
    contexts: Mapping[str, Sequence[int]],
    kept: Path,
    workers: Workers = ALONE,
) -> Predictions:
    """Predictions of a model as it is: without demonstrations, and after each of `contexts`.

    `zero_shot` and `in_context` name the two methods; what is done is kept in `kept`. Of several processes
    the writer gets the predictions.
    """
    runs: list[tuple[str, str, Sequence[int]]] = [(zero_shot, ONLY, predictor.encoder.leading)]
    runs += [(in_context, name, before) for name, before in contexts.items()]
    found: Predictions = {}
    for method, name, before in runs:
        found |= predictor.predict(reader, method, name, before, kept=kept, workers=workers)
    return found


def fine_tuned_predictions(
    load_reader: Callable[[], LabelReader],
    predictor: Predictor,
    demonstrations: Mapping[str, Sequence[Example]],
    *,
    settings: TrainingSettings,
    seed: int,
    kept: Path,
    workers: Workers,
) -> Predictions:
    """Predictions of a model fine-tuned on each demonstration set.

    All processes train and predict, the writer gets the predictions.
    """
    found: Predictions = {}
    for name, shown in demonstrations.items():
        path = kept / f"tuned {name}.safetensors"
        if not workers.from_writer(is_kept(path)):
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
            predictions = predictor.predict(
                reader, methods.FINE_TUNING, name, encoder.leading, kept=kept, workers=workers
            )
            if workers.is_writer:
                keep_predictions(path, predictions)
        if workers.is_writer:
            found |= read_predictions(path)
    return found
