"""The headline on shapes: a student of one checkpoint rounded to nearest, beside a teacher of another.

    python -m tests.evidence_headline RECIPE STUDENT TEACHER [--queries N] [--rounds N] [--precision A,B]

Task, data and number of demonstrations are RECIPE's; STUDENT and TEACHER are folders such as
`tests/opt_shaped.py` writes. The student's weights are int4 in blocks of 256. What is shown
is speed, memory, bytes and operations: weights that know nothing answer at chance.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer

from edgeicl.bench.headline.compare_teacher import headline
from edgeicl.bench.headline.questions import Shown
from edgeicl.models.model_folder import model_config, model_folder
from edgeicl.report.headline_facts import headline_tables
from edgeicl.report.tables import markdown
from edgeicl.specs.catalog import find_recipe, load_recipe
from edgeicl.specs.manifest import TaskFile
from edgeicl.specs.quant_plan import Format
from edgeicl.store import Store, cache_root
from edgeicl.tasks.verbalizer import verbalizer_tokens
from tests.unit.bench.conftest import build_artifact


def main() -> None:
    """Builds the artifact, measures, prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("student", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--context-tokens", type=int, default=256, help="Of the artifact.")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--json", type=Path, help="Where every sample is written.")
    given = parser.parse_args()
    recipe = load_recipe(given.recipe)
    task, shown = recipe.task, recipe.distill.demonstrations
    student, teacher = (model_folder(str(path.resolve())) for path in (given.student, given.teacher))
    tokenizer = Tokenizer.from_file(str(student / "tokenizer.json"))
    with TemporaryDirectory() as scratch:
        artifact = build_artifact(
            Path(scratch) / "int4-block256",
            model_config(student),
            Format(bits=4, block_size=256),
            tokenizer,
            TaskFile(
                pattern=task.pattern,
                verbalizers=task.verbalizers,
                verbalizer_tokens=verbalizer_tokens(task.verbalizers, tokenizer),
                separator=task.separator,
                score=task.score,
            ),
            checkpoint=student,
            context_tokens=given.context_tokens,
        )
        found = headline(
            artifact,
            teacher=teacher,
            teacher_name=given.teacher.name,
            sources={"in_domain": task.in_domain},
            shown=Shown(task.train, shown.count, shown.balanced, shown.seeds[0]),
            base_folder=find_recipe(given.recipe).parent,
            store=Store(cache_root()),
            threads=given.threads,
            queries=given.queries,
            rounds=given.rounds,
            precisions=given.precision.split(","),
        )
    if given.json:
        given.json.write_text(found.model_dump_json(indent=1))
    for table in headline_tables(found):
        sys.stdout.write(f"## {table.heading}\n\n{markdown(table.headers, table.rows)}\n\n{table.note}\n\n")


if __name__ == "__main__":
    main()
