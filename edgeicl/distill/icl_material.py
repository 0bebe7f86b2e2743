"""What the stages of method `icl` work on: episodes, demonstration sets, text; and what stands for them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeicl.distill.icl_tasks import read_icl_data
from edgeicl.distill.in_context_tuning import PASS_TOKENS
from edgeicl.distill.preflight import check_models
from edgeicl.distill.scoring import scoring_size
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import seed_name
from edgeicl.distill.tuning_episodes import Episode, draw_episodes
from edgeicl.errors import DataError
from edgeicl.models.loading import config_number
from edgeicl.models.memory import Scoring
from edgeicl.store import digest_of
from edgeicl.tasks.examples_digest import examples_digest
from edgeicl.tasks.text_blocks import text_blocks


class IclMaterial:
    """Everything that is read, drawn and encoded for one run; nothing of it needs a model."""

    def __init__(self, run: TaskRun) -> None:
        self.run, self.encoder = run, run.encoder
        self.settings, self.seed = run.recipe.distill, run.recipe.seed
        self.data, self.deviations = read_icl_data(run)

    @cached_property
    def episodes(self) -> list[Episode]:
        """What models are tuned on."""
        return draw_episodes(
            self.data.tuned,
            count=self.settings.icl.episodes,
            demonstrations=self.settings.demonstrations.count,
            balanced=self.settings.demonstrations.balanced,
            every_label=self.settings.icl.labels == "all",
            seed=self.seed,
        )

    @cached_property
    def sets(self) -> dict[str, list[list[int]]]:
        """Tokens of the demonstration sets that stand before the target's queries, by seed."""
        return {
            seed_name(seed): [self.encoder.demonstrations(shown) for shown in several]
            for seed, several in self.data.shown.items()
        }

    @cached_property
    def measured(self) -> list[list[int]]:
        """Queries of the target task that nothing is tuned on."""
        return self.encoder.queries(self.data.measured)

    @cached_property
    def blocks(self) -> NDArray[np.int64] | None:
        """Token ids [N, T] of the plain text, where the objective has a term for it."""
        if self.settings.text is None or self.settings.objective.lm == 0:
            return None
        return text_blocks(
            self.run.tokenizer, self.run.documents, block_tokens=self.settings.icl.text_block_tokens
        )

    @cached_property
    def target_inputs(self) -> dict[str, Any]:
        """For the store: what decides how a model is asked about the target task."""
        words = list(self.encoder.tokens.values())
        return self.run.task_inputs() | {
            "prompts": digest_of([words, self.encoder.leading, self.sets, self.measured]),
            "measured": examples_digest([("measured", self.data.measured)]),
        }

    @cached_property
    def episode_inputs(self) -> dict[str, Any]:
        """For the store: what is tuned on."""
        drawn = [[one.ids, one.reads, one.gold, one.words] for one in self.episodes]
        return {
            "episodes": digest_of(drawn),
            "over": self.settings.objective.over,
            "score": self.run.recipe.task.score,
        }

    @cached_property
    def evaluation_inputs(self) -> dict[str, Any]:
        """For the store: what models are judged on."""
        return {"evaluation": examples_digest(self.run.evaluation.items())}

    def scoring_size(self, device_type: str) -> Scoring:
        """The most that goes through a teacher at once: queries after a set, or episodes, or blocks of text."""
        over = self.settings.objective.over
        asked = scoring_size(
            [*self.measured, *self.run.predictor.queries],
            self.run.predictor.tokens,
            before=max((one for several in self.sets.values() for one in several), key=len),
            over=over,
            device_type=device_type,
        )
        longest = max(len(one.ids) for one in self.episodes)
        rows = max(1, PASS_TOKENS // longest)
        read = rows * len(self.episodes[0].reads) if over == "vocabulary" else 0
        text = 0 if self.blocks is None else self.settings.training.batch_size * self.blocks.shape[1]
        return Scoring(
            prefix_tokens=asked.prefix_tokens,
            pass_tokens=max(asked.pass_tokens, rows * longest, text),
            full_logits=max(asked.full_logits, read, text),
        )

    def check_models(self, teacher: Path) -> None:
        """Looks at what must hold before any work.

        Raises:
            DataError: models that don't fit each other, or read fewer tokens than an episode or prompt has.
        """
        student, over = self.run.student_folder, self.settings.objective.over
        for task in self.data.tuned:
            if over == "vocabulary" and any(len(word) > 1 for word in task.encoder.tokens.values()):
                raise DataError(
                    f"{task.where}: an objective over the vocabulary needs verbalizers of one token; found "
                    f"{task.encoder.tokens}",
                    next_step="choose other verbalizers, or set distill.objective.over: verbalizers",
                )
        query = max(self.run.predictor.longest_tokens, *map(len, self.measured)) + _more(self.encoder.tokens)
        shown = query + max(len(one) for several in self.sets.values() for one in several)
        tuned = max(len(one.ids) + max(map(len, one.words)) - 1 for one in self.episodes)
        unread = check_models(
            teacher,
            student,
            self.encoder.tokens,
            over=over,
            same_head=over == "vocabulary" or self.blocks is not None,
            query_tokens=len(self.encoder.leading) + query,
            prompt_tokens=max(shown, tuned),
        )
        if unread:
            raise DataError(
                f"the longest prompt with demonstrations has {max(shown, tuned):,} tokens; {unread[0].why}",
                next_step="lower distill.demonstrations.count, or take a student that reads more",
            )
        if self.blocks is not None:
            for folder in (teacher, student):
                reads = config_number(folder, "max_position_embeddings")
                if self.blocks.shape[1] > reads:
                    raise DataError(
                        f"distill.icl.text_block_tokens is {self.blocks.shape[1]}; {folder} reads {reads:,}",
                        next_step="shorten the blocks of text",
                    )


def _more(tokens: dict[str, tuple[int, ...]]) -> int:
    """Tokens of the longest label that are read before its last one is known."""
    return max(map(len, tokens.values())) - 1
