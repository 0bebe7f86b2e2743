"""What all stages of Meta-KD work on: examples of all domains, prompts, settings; checked before any work."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.meta_kd.domains import (
    DomainData,
    by_column,
    check_evaluated_domain,
    deal_domains,
)
from edgeicl.distill.meta_kd.feature_matching import check_heads, layer_map
from edgeicl.distill.preflight import check_models
from edgeicl.distill.student import MODEL
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import seed_name
from edgeicl.errors import DataError, EdgeiclError
from edgeicl.models.loading import config_number, save_model
from edgeicl.models.model_folder import model_config, weights_digest
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.meta_kd import MetaKD
from edgeicl.store import digest_of
from edgeicl.tasks.demonstrations import choose
from edgeicl.tasks.example import Example
from edgeicl.tasks.leakage import by_query, unevaluated

LOSSES = "losses.json"


class MetaTask:
    """One recipe's domains, seen from its student's."""

    def __init__(self, run: TaskRun) -> None:
        self.run = run
        self.recipe, self.settings = run.recipe, run.recipe.distill
        self.encoder = run.encoder
        self.tokens = list(run.encoder.tokens.values())
        self.skip = len(run.encoder.leading)
        """Tokens that begin every prompt, and tell nothing."""

    @property
    def meta_kd(self) -> MetaKD:
        assert self.settings.meta_kd is not None  # the schema sees to it
        return self.settings.meta_kd

    @cached_property
    def data(self) -> DomainData:
        train, settings = self.run.train, self.meta_kd
        if settings.domain_column is not None:
            domains = by_column(train, settings.domain_column, settings.domain)
            in_domain = self.run.evaluation["in_domain"]
            check_evaluated_domain(in_domain, settings.domain_column, settings.domain)
        else:
            others = {name: self.run.read(source) for name, source in settings.domains.items()}
            domains = {settings.domain: train, **others}
        return deal_domains(
            domains,
            self.run.evaluated,
            pattern=self.recipe.task.pattern,
            own_examples=settings.domain_examples,
            seed=self.recipe.seed,
            leakage=self.settings.leakage,
        )

    @cached_property
    def rows(self) -> list[list[int]]:
        """Prompts of all training examples."""
        return self.encoder.prompts(self.data.examples)

    @cached_property
    def own(self) -> list[Example]:
        """The training examples of the student's domain; `rows` begins with theirs."""
        return self.data.examples[: self.data.own]

    @property
    def own_rows(self) -> list[list[int]]:
        return self.rows[: self.data.own]

    @cached_property
    def _shown_from(self) -> tuple[dict[int, list[Example]], tuple[Deviation, ...]]:
        """What each seed's demonstrations are drawn from, where they have a source, and what was left out."""
        pattern = self.recipe.task.pattern
        evaluated = by_query(pattern, self.run.evaluated)
        pools: dict[int, list[Example]] = {}
        deviations: tuple[Deviation, ...] = ()
        for seed, examples in self.run.demonstration_sources().items():
            usable, dropped = unevaluated(
                by_query(pattern, examples),
                evaluated,
                leakage=self.settings.leakage,
                where=f"distill.demonstrations.source, seed {seed}",
            )
            pools[seed] = list(usable.values())
            deviations += dropped
        return pools, deviations

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """What was asked of the data and could not be given."""
        return self.data.deviations + self._shown_from[1]

    @cached_property
    def demonstrations(self) -> dict[int, list[Example]]:
        """For the in-context baselines, by seed: from their source, else the student's domain."""
        shown, pools = self.settings.demonstrations, self._shown_from[0]
        return {
            seed: choose(
                pools.get(seed, self.own),
                count=shown.count,
                balanced=shown.balanced,
                seed=seed,
                labels=self.encoder.labels,
            )
            for seed in shown.seeds
        }

    @cached_property
    def contexts(self) -> dict[str, list[int]]:
        """Tokens that stand before a query, by demonstration set."""
        return {
            seed_name(seed): self.encoder.demonstrations(shown) for seed, shown in self.demonstrations.items()
        }

    def check(self) -> tuple[Deviation, ...]:
        """What must hold between models and prompts; see `preflight.check_models`.

        Raises:
            EdgeiclError: it does not, or FSDP is configured; nothing has been worked on.
        """
        if self.run.workers.shards_teacher:
            raise EdgeiclError(
                "accelerate is configured for FSDP, which would share the teacher's weights among processes; "
                "expected it off: method meta_kd trains its teacher, whole in each process",
                next_step="launch without FSDP (torchrun --nproc-per-node, or accelerate launch --multi_gpu)",
            )
        answer = max(map(len, self.tokens)) - 1
        query = max(self.run.predictor.longest_tokens, *map(len, self.rows)) + answer
        models = (self.run.teacher_folder, self.run.student_folder)
        _require_one_width(models)
        missing = check_models(
            *models,
            self.encoder.tokens,
            over="verbalizers",
            same_head=False,
            query_tokens=self.skip + query,
            prompt_tokens=max(map(len, self.contexts.values())) + query,
        )
        if self.meta_kd.matching.epochs:
            layer_map(*(config_number(folder, "num_hidden_layers") for folder in models))
            if self.meta_kd.matching.attention:
                check_heads(*(config_number(folder, "num_attention_heads") for folder in models))
        return missing

    def common_inputs(self) -> dict[str, Any]:
        """What of the recipe decides every stage."""
        return self.run.task_inputs() | {
            "teacher": weights_digest(self.run.teacher_folder),
            "data": self.data.digest,
            # The prompts are the student's tokenizer's work, which the teacher's digest does not cover.
            "prompts": digest_of([self.tokens, self.rows]),
            "training": self.settings.training.deciding(),
            "seed": self.recipe.seed,
        }

    def keep(self, folder: Path, reader: LabelReader, source: Path, losses: Sequence[float], what: str) -> None:
        """Writes a trained model and its losses into `folder`; EdgeiclError where its training diverged."""
        if not all(map(math.isfinite, losses)):
            raise EdgeiclError(
                f"{what}: training diverged; found a loss that is no finite number",
                next_step="lower distill.training.learning_rate or distill.meta_kd.teacher_learning_rate, "
                "or raise distill.training.warmup_ratio",
            )
        if self.run.writes:
            save_model(reader.model, source, folder / MODEL)
            (folder / LOSSES).write_text(json.dumps(list(losses)) + "\n")


def _require_one_width(models: Sequence[Path]) -> None:
    """DataError for a model whose last state, which domains are told by, is not as wide as its others."""
    for folder in models:
        config = model_config(folder)
        width = config.get("word_embed_proj_dim") or config.get("hidden_size")
        if width != config.get("hidden_size", width):
            raise DataError(
                f"{folder}: hidden_size {config['hidden_size']} and word_embed_proj_dim {width}; method "
                "meta_kd expects models of one width",
                next_step="take another model, such as facebook/opt-125m or opt-1.3b",
            )
