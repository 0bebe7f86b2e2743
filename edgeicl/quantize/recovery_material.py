"""What a recipe's quantized student learns from: queries of its task, plain text, texts of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.loading import load_tokenizer
from edgeicl.models.model_folder import model_config
from edgeicl.quantize.calibration import calibration_text
from edgeicl.quantize.lessons import Answers, Lesson
from edgeicl.quantize.stage_inputs import TEXT_BLOCK_TOKENS
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.recovery import Recover
from edgeicl.tasks.label_targets import LabelTargets
from edgeicl.tasks.leakage import by_query, fewer_examples, unevaluated
from edgeicl.tasks.prompt import PromptEncoder
from edgeicl.tasks.readers import read_examples

_FEWEST = 8


class RecoveryMaterial:
    """The sequences, all but those that the student is yet to write.

    Args:
        targets: The teacher's answers, where the method has a teacher for the deployed student.
        sets: What stands before every query: of each demonstration set, token ids [P] or vectors [P, H].

    Raises:
        DataError: data that can't be read.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: Recover,
        *,
        student: Path,
        base_folder: Path,
        targets: LabelTargets | None,
        sets: Sequence[NDArray[Any]],
    ) -> None:
        task = recipe.task
        self._recipe, self._base_folder, self._sets = recipe, base_folder, sets
        self._encoder = PromptEncoder(
            load_tokenizer(student),
            pattern=task.pattern,
            verbalizers=task.verbalizers,
            separator=task.separator,
        )
        self.leading = self._encoder.leading
        room = anatomy_of(model_config(student)).positions - max(map(len, sets), default=0)
        self.text_tokens = min(TEXT_BLOCK_TOKENS, room)
        self.deviations: tuple[Deviation, ...] = ()
        if targets is not None:
            queries = self._answered(targets, settings.queries)
        else:
            queries = Lesson("queries", self._of_task(settings.queries, room), before=sets)
        self.lessons = [queries]
        source = recipe.quantize.calibration_text
        if source is not None:
            found = calibration_text(
                source,
                student,
                blocks=settings.text_blocks,
                block_tokens=self.text_tokens,
                seed=recipe.seed,
                base_folder=base_folder,
            )
            self.lessons.append(Lesson("text", found, before=sets))

    def _answered(self, targets: LabelTargets, count: int) -> Lesson:
        """Queries with the teacher's answers, `count` at most, drawn by the seed."""
        chosen = np.random.default_rng(self._recipe.seed).permutation(len(targets.rows))[:count]
        drawn = replace(
            targets,
            rows=[targets.rows[at] for at in chosen],
            log_probabilities=targets.log_probabilities[chosen],
        )
        words = list(self._encoder.tokens.values())
        answers = Answers(drawn, words, self._recipe.task.score)
        return Lesson("queries", drawn.rows, answers, before=self._sets)

    def _of_task(self, count: int, room: int) -> list[list[int]]:
        """Prompts of `count` training examples at most, none of which is evaluated or finds no room."""
        task, pattern = self._recipe.task, self._recipe.task.pattern
        sources = [source for source in (task.in_domain, task.out_of_domain) if source is not None]
        evaluated = [
            example
            for source in sources
            for example in read_examples(source, labels=self._encoder.labels, base_folder=self._base_folder)
        ]
        found = read_examples(task.train, labels=self._encoder.labels, base_folder=self._base_folder)
        kept, told = unevaluated(
            by_query(pattern, found),
            by_query(pattern, evaluated),
            leakage="drop",
            where="task.train",
        )
        examples = list(kept.values())
        random.Random(f"recover/{self._recipe.seed}").shuffle(examples)
        rows = self._encoder.queries(examples) if self._sets else self._encoder.prompts(examples)
        fitting = [row for row in rows if len(row) <= room]
        self.deviations = told
        if len(fitting) < len(rows):
            why = f"longer than the {room} tokens that the student reads"
            self.deviations += (fewer_examples("quantize.recover.queries", rows, fitting, why),)
        if len(fitting) < _FEWEST:
            raise DataError(
                f"quantize.recover: found {len(fitting)} texts of task.train that are not evaluated and fit; "
                f"expected at least {_FEWEST} to learn from",
                next_step="give more training data, or leave out quantize.recover",
            )
        return fitting[:count]
