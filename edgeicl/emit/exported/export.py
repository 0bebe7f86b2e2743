"""Optimum's export of the student: a stage of its own, as it takes longer than all that follows."""

from __future__ import annotations

from pathlib import Path

from edgeicl.models import exporter
from edgeicl.models.model_folder import weights_digest
from edgeicl.store import StageOutput, Store


def exported(student: Path, *, store: Store) -> StageOutput:
    """The export of the model in `student`, in fp32: `model.onnx`, and `model.onnx_data` where it is large.

    Raises:
        DataError: no exporter, or one that can't export this model.
    """
    python = exporter.exporter_python()
    inputs = {"student": weights_digest(student), "exporter": exporter.exporter_versions(python)}
    return store.run("export", inputs, lambda folder: exporter.export(student, folder, python=python))
