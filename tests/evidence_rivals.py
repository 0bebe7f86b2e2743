"""Artifacts of one student in several formats beside rivals, in one run: the table of docs/results/rivals.md.

    python -m tests.evidence_rivals CHECKPOINT [--with A,B,...] [--python NAME=PATH ...]
        [--rounds N] [--most-rounds N] [--runs N]

CHECKPOINT is a folder with config.json and model.safetensors, such as `tests/opt_shaped.py` writes. Artifacts
are rounded to nearest, all groups in one format: what is shown is speed and size.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgeicl.bench.compare import compare, prepare
from edgeicl.bench.repeats import run_repeatedly
from edgeicl.bench.rivals.table import RIVALS
from edgeicl.bench.workload import Workload
from edgeicl.models.model_folder import model_config
from edgeicl.report.comparison_facts import comparison_tables
from edgeicl.report.repeat_facts import repeat_tables
from edgeicl.report.tables import markdown
from edgeicl.specs.comparison import Comparison
from edgeicl.specs.quant_plan import BY_ROW, Format
from edgeicl.store import Store, cache_root
from tests.unit.bench.conftest import build_artifact, tiny_task, tiny_tokenizer

INT4 = Format(bits=4, block_size=256)
FORMATS: dict[str, tuple[Format, dict[str, Any]]] = {
    "int4-block256": (INT4, {}),
    "int4-block256-cache-int8": (INT4, {"cache_bits": 8}),
    "int4-block256-prompts-int8-row": (INT4, {"prompt_format": BY_ROW, "prompt_attention": "whole"}),
    "int4-block256-cache-int8-prompts-int8-row": (
        INT4,
        {"cache_bits": 8, "prompt_format": BY_ROW, "prompt_attention": "whole"},
    ),
    "int8-row": (BY_ROW, {"table": INT4, "prompt_attention": "whole"}),
    "int2-block64": (Format(bits=2, block_size=64), {"table": INT4}),
    "int4-block128": (Format(bits=4, block_size=128), {}),
    "int8-block128": (Format(bits=8, block_size=128), {}),
    "int4-block128-labels": (Format(bits=4, block_size=128), {"labels_alone": True}),
    "int2-block128-labels": (Format(bits=2, block_size=128), {"labels_alone": True}),
}
"""Artifact -> format of its weights, and more; the table of `int8-row` and `int2-block64` is int4."""


def main() -> None:
    """Builds the artifacts, compares, prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--artifacts", default=",".join(FORMATS))
    on_cpu = (name for name, rival in RIVALS.items() if rival.provider == "cpu")
    parser.add_argument("--with", dest="rivals", default=",".join(on_cpu))
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--most-rounds", type=int, default=15)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", type=Path, help="Where every sample is written.")
    given = parser.parse_args()
    with TemporaryDirectory() as scratch:
        artifacts = [
            build_artifact(
                Path(scratch) / name,
                model_config(given.checkpoint),
                format_,
                tiny_tokenizer(),
                tiny_task({"entailment": "yes", "contradiction": "no"}),
                **settings,
                checkpoint=given.checkpoint,
                context_tokens=given.prompt_tokens + given.decode_tokens,
            )
            for name in given.artifacts.split(",")
            for format_, settings in [FORMATS[name]]
        ]
        contest = prepare(
            artifacts,
            Workload(
                given.threads, given.prompt_tokens, given.decode_tokens, given.repetitions, 1, given.seconds
            ),
            rivals=given.rivals.split(","),
            model=given.checkpoint,
            store=Store(cache_root()),
            pythons={name: Path(path).absolute() for name, _, path in (p.partition("=") for p in given.python)},
            install=given.install,
        )
        found = (
            compare(contest, rounds=given.rounds, most_rounds=given.most_rounds)
            if given.runs == 1
            else run_repeatedly(contest, runs=given.runs, rounds=given.rounds, most_rounds=given.most_rounds)
        )
    if given.json:
        given.json.write_text(found.model_dump_json(indent=1))
    for table in comparison_tables(found) if isinstance(found, Comparison) else repeat_tables(found):
        sys.stdout.write(f"## {table.heading}\n\n{markdown(table.headers, table.rows)}\n\n{table.note}\n\n")


if __name__ == "__main__":
    main()
