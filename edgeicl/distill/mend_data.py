"""What MEND's hypernetwork learns from, and whether the two models can read it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from edgeicl.distill.meta_training import Room, to_train_on
from edgeicl.distill.task_data import TaskData
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import seed_name
from edgeicl.distill.tuned_tasks import TunedTask, refuse_the_same_question
from edgeicl.errors import DataError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.loading import check_same_tokens, config_number
from edgeicl.models.model_folder import model_config
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.mend import Mend
from edgeicl.specs.tuning_task import TuningTask
from edgeicl.store import digest_of
from edgeicl.tasks.example import Example
from edgeicl.tasks.examples_digest import examples_digest
from edgeicl.tasks.leakage import TextKey, text_keys
from edgeicl.tasks.readers import read_examples


class MendData:
    """The target task, the meta-training tasks and the texts, for one student and one hypernetwork."""

    def __init__(self, run: TaskRun, mend: Mend, hypernetwork: Path) -> None:
        self.run, self.mend, self.hypernetwork = run, mend, hypernetwork
        self.settings = run.recipe.distill
        self._deviations: list[Deviation] = []

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Everything asked for and not done with the data, as far as it was read."""
        return (*self.run.deviations, *self.target.deviations, *self._deviations)

    def check(self) -> None:
        """DataError for a student that can't be compiled, other tokens, or prompts that a model can't read.

        Reads all data, so that a problem in it is told before any work.
        """
        anatomy_of(model_config(self.run.student_folder))
        check_same_tokens(self.hypernetwork, self.run.student_folder, same_head=False, role="hypernetwork")
        longest = max(map(len, self.contexts.values()))
        answer = max(map(len, self.run.encoder.tokens.values())) - 1
        queries = self.run.encoder.queries(self.target.scored)
        query = max(self.run.predictor.longest_tokens, *map(len, queries)) + answer
        for found, allowed, what, model in (
            (longest, self.room.context_tokens, "longest demonstration set", self.hypernetwork),
            (
                longest + query,
                self.room.prompt_tokens,
                "longest prompt with demonstrations",
                self.run.student_folder,
            ),
            (
                self.mend.vectors + query,
                self.room.prompt_tokens,
                "longest query behind the vectors",
                self.run.student_folder,
            ),
        ):
            if found > allowed:
                reserved = f" beside {self.mend.vectors} vectors" if model == self.hypernetwork else ""
                raise DataError(
                    f"the {what} has {found:,} tokens; {model} reads {allowed:,}{reserved}",
                    next_step="lower distill.demonstrations.count or distill.mend.vectors, or leave out the "
                    "longest examples",
                )
        if self.mend.on_text.steps:
            _ = self.texts
        if self.mend.on_tasks.steps:
            _ = self.meta_tasks

    @cached_property
    def room(self) -> Room:
        """What both models have positions for."""
        reads = [
            config_number(folder, "max_position_embeddings")
            for folder in (self.hypernetwork, self.run.student_folder)
        ]
        return Room(context_tokens=reads[0] - self.mend.vectors, prompt_tokens=reads[1])

    @cached_property
    def embedding_width(self) -> int:
        """Width of the student's token embeddings."""
        return anatomy_of(model_config(self.run.student_folder)).embedding_width

    @cached_property
    def target(self) -> TaskData:
        """The target task's examples, dealt out."""
        return self.run.dealt(
            self.settings.demonstrations.seeds,
            transfer_examples=self.settings.transfer_examples,
            shown_from=self.run.demonstration_sources(),
        )

    @cached_property
    def contexts(self) -> dict[int, list[int]]:
        """Tokens of the evaluated demonstration sets, by seed."""
        return {
            seed: self.run.encoder.demonstrations(shown) for seed, shown in self.target.demonstrations.items()
        }

    @cached_property
    def named_contexts(self) -> dict[str, list[int]]:
        """The same, by the names that predictions have."""
        return {seed_name(seed): context for seed, context in self.contexts.items()}

    @cached_property
    def meta_tasks(self) -> tuple[TunedTask, ...]:
        """What stage 2 draws from: no text that is evaluated on, shown in an evaluated set, or held out."""
        tasks = [self._meta_task(number, task) for number, task in enumerate(self.mend.tasks)]
        if self.mend.target == "seen":
            tasks.append(TunedTask("task.train", self.run.encoder, tuple(self.target.transfer)))
        return tuple(tasks)

    @property
    def meta_tasks_digest(self) -> str:
        """Changes with any text, label or way of writing them."""
        return digest_of(
            [
                [
                    task.encoder.pattern,
                    list(task.encoder.tokens.items()),
                    task.encoder.demonstrations(task.examples[:2]),
                    examples_digest([("examples", task.examples)]),
                ]
                for task in self.meta_tasks
            ]
        )

    @cached_property
    def texts(self) -> list[list[int]]:
        """Token ids of the documents of stage 1, after the leading tokens; one of a single token is no text."""
        leading, tokenizer = self.run.encoder.leading, self.run.tokenizer
        encodings = tokenizer.encode_batch(self.run.documents, add_special_tokens=False)
        whole = [[*leading, *encoding.ids] for encoding in encodings]
        asked = self.mend.on_text.document_tokens
        compressed = int(self.room.context_tokens / self.mend.on_text.context_share)
        most = min(asked, self.room.prompt_tokens, compressed)
        longer = sum(len(text) > most for text in whole)
        if most < asked and longer:
            self._deviations.append(
                Deviation(
                    what="documents",
                    where="distill.text",
                    asked=f"up to {asked} tokens",
                    got=f"up to {most} tokens, fewer than {longer} documents have",
                    why=f"the models read {self.room.context_tokens} and {self.room.prompt_tokens} at once",
                )
            )
        texts = [text[:most] for text in whole if len(text) > 1]
        if not texts:
            raise DataError(f"{self.settings.text}: found no document of two tokens or more")
        return texts

    @cached_property
    def _evaluated(self) -> set[TextKey]:
        return set(self._keys_of(self.run.evaluated))

    @cached_property
    def _kept_back(self) -> set[TextKey]:
        sets = (*self.target.demonstrations.values(), self.target.held_out)
        return {key for examples in sets for key in self._keys_of(examples)}

    def _keys_of(self, examples: Sequence[Example]) -> list[TextKey]:
        return text_keys(self.run.recipe.task.pattern, examples)

    def _meta_task(self, number: int, task: TuningTask) -> TunedTask:
        encoder = self.run.tuning_encoder(task)
        where = f"distill.mend.tasks.{number} ({task.train})"
        read = read_examples(task.train, labels=encoder.labels, base_folder=self.run.base_folder)
        if self.mend.target == "unseen":
            refuse_the_same_question(
                TunedTask(where, encoder, tuple(read)),
                TunedTask("task.train", self.run.encoder, tuple(self.run.train)),
            )
        kept, told = to_train_on(
            read, pattern=encoder.pattern, evaluated=self._evaluated, kept_back=self._kept_back, where=where
        )
        self._deviations += told
        return TunedTask(where, encoder, kept)
