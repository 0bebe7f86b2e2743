"""What the stages of context distillation work on: who sees which example, as token ids."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgeicl.distill.adapter import check_adapter
from edgeicl.distill.demonstration_sets import set_seeds, sources_of_sets
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.preflight import check_models
from edgeicl.distill.scoring import scoring_size
from edgeicl.distill.task_data import TaskData
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import seed_name
from edgeicl.distill.text_modelling import blocks_for
from edgeicl.errors import EdgeiclError
from edgeicl.models.memory import Scoring
from edgeicl.specs.manifest import Deviation
from edgeicl.tasks.example import Example


class ContextTask:
    """One recipe's demonstrations, transfer examples and teacher."""

    def __init__(self, run: TaskRun) -> None:
        self.run = run
        self.recipe, self.settings = run.recipe, run.recipe.distill
        self.encoder = run.encoder
        self.asked = run.untrained_encoder
        self.over = self.settings.objective.over
        shown = self.settings.demonstrations
        self.sets = set_seeds(shown.seeds, shown.sets_per_student)

    def check(self) -> tuple[Deviation, ...]:
        """What must hold between models, data and task; see `preflight.check_models`.

        Raises:
            DataError: it does not; nothing has been worked on.
        """
        if self.settings.objective.on_policy and self.run.workers.shards_teacher:
            # Its processes go through different numbers of passes, and all must take part in each.
            raise EdgeiclError(
                "distill.objective.on_policy needs the whole teacher in every process; found FSDP",
                next_step="launch without --use_fsdp, or set distill.objective.on_policy: 0",
            )
        student = self.settings.student
        check_adapter(self.run.student_folder, student.adapter, target_modules=student.lora.target_modules)
        alone, shown = self.longest_prompts()
        return check_models(
            self.run.teacher_folder,
            self.run.student_folder,
            self.encoder.tokens,
            over=self.over,
            same_head=self.over == "vocabulary" or self.settings.objective.on_policy > 0,
            query_tokens=alone,
            prompt_tokens=shown,
        )

    @cached_property
    def data(self) -> TaskData:
        return self.run.dealt(
            [seed for sets in self.sets.values() for seed in sets.values()],
            transfer_examples=self.settings.transfer_examples,
            shown_from=sources_of_sets(self.sets, self.run.demonstration_sources()),
        )

    @cached_property
    def contexts(self) -> dict[str, list[int]]:
        """Tokens that stand before a query, by demonstration set."""
        return {
            name: self.asked.demonstrations(self.data.demonstrations[seed])
            for sets in self.sets.values()
            for name, seed in sets.items()
        }

    @cached_property
    def shown_to_students(self) -> dict[str, list[Example]]:
        """All the examples that the teacher of each student sees."""
        return {
            seed_name(student): [
                example for seed in sets.values() for example in self.data.demonstrations[seed]
            ]
            for student, sets in self.sets.items()
        }

    @cached_property
    def text(self) -> NDArray[np.int64] | None:
        """Blocks of plain text as token ids, where the objective models language."""
        if not self.settings.objective.lm:
            return None
        return blocks_for(self.run.student_folder, self.run.documents)

    @cached_property
    def queries(self) -> list[list[int]]:
        """Token ids of the examples that the teacher scores."""
        return self.asked.queries(self.data.scored)

    def longest_prompts(self) -> tuple[int, int]:
        """Tokens of the longest prompt without demonstrations, and with them."""
        sampled = self.settings.on_policy.tokens if self.settings.objective.on_policy else 0
        answer = max(*map(len, self.encoder.tokens.values()), sampled)
        answer -= not self.asked.asks_channel  # a direct reader never reads the answer's last token
        query = max(self.run.predictor.longest_tokens, *map(len, self.queries)) + answer
        # Demonstrations are prompts themselves where the baseline is fine-tuned on them.
        shown = [example for examples in self.data.demonstrations.values() for example in examples]
        alone = max(query, *(len(row) + answer for row in self.encoder.queries(shown)))
        return len(self.encoder.leading) + alone, max(map(len, self.contexts.values())) + query

    def teacher_reader(self) -> LabelReader:
        """The teacher, once it is known to fit in memory with what it scores."""
        folder, load_in = self.run.teacher_folder, self.run.teacher.load_in
        return self.run.teacher_reader(folder, load_in, scoring=self.scoring_size())

    def scoring_size(self) -> Scoring:
        """The largest that goes through the teacher at once."""
        return scoring_size(
            [*self.queries, *self.run.predictor.queries],
            list(self.encoder.tokens.values()),
            before=max(self.contexts.values(), key=len),
            over=self.over,
            device_type=self.run.device.type,
            every_token=self.asked.asks_channel,
        )
