"""The programs that run on devices, and the files each device needs for them, to lie side by side."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[2]

PROGRAMS = {name: f"edgeicl.bench.{name}" for name in ("runner", "graph_times", "answers")}
"""Program -> module. They import the standard library, numpy, onnxruntime and each other, nothing else."""

ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # numpy's own threads would be counted as the runtime's
    "MKL_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime's wheels send some from 1.32 on
}
"""What every program runs with, beside what a device needs."""

_FILES = (
    "bench/runner.py",
    "bench/graph_times.py",
    "bench/answers.py",
    "bench/answer_scores.py",
    "bench/protocol.py",
    "bench/device_facts.py",
    "bench/length_tests.py",
    "bench/sustained.py",
    "bench/bandwidth.py",
    "models/onnx_decoder.py",
    "models/device_decoder.py",
    "models/growing_decoder.py",
    "models/prefix_file.py",
    "numerics/padding.py",
)


def program_files() -> dict[str, Path]:
    """Name on a device -> file here, of all programs; `python runner.py` then reads a request from stdin."""
    return {Path(name).name: _PACKAGE / name for name in _FILES}
