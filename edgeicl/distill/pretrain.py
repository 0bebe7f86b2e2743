"""Trains a built-in model from nothing: first what the tasks mean, then to tell them from demonstrations.

What makes small models learn here, and what does not, is told in docs/results/built-in-models.md: named
texts of one example before any task has to be told from demonstrations, a language-model loss on the texts
themselves, and attention that starts by looking for the token it stands on.
"""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from edgeicl.distill.answer_loss import answer_loss
from edgeicl.distill.episodes import Texts, encode, episode_text
from edgeicl.distill.learning_curve import accuracy_by_demonstrations
from edgeicl.distill.new_model import new_model
from edgeicl.distill.pretraining_loop import check_one_process, pretraining_loop
from edgeicl.replacement import replacing
from edgeicl.specs.loading import dump_yaml
from edgeicl.specs.pretraining import Phase, Pretraining
from edgeicl.store import CHECKPOINT, digest_of, file_sha256
from edgeicl.tasks.byte_level_tokenizer import write_tokenizer
from edgeicl.tasks.nli_stories import story_text
from edgeicl.tasks.nli_tokenizer import family_tokenizer

log = logging.getLogger(__name__)

RECIPE = "pretraining.resolved.yaml"
"""The recipe with every default, in the model's folder: what has it was made here and may be replaced."""

_LONGEST_TEXT_TOKENS = 512
_EVALUATED_EPISODES = 500


def pretrain(pretraining: Pretraining, output: Path) -> dict[str, Any]:
    """Trains the model of `pretraining` into `output`; returns accuracy by number of demonstrations.

    A killed run goes on from its last checkpoint, beside `output`, and ends with the same weights.

    Raises:
        DataError: `output` holds something else, or can't be written.
        EdgeiclError: more than one process was launched; so small a model is trained in one.
    """
    check_one_process()
    with replacing(output, RECIPE, keep=CHECKPOINT) as folder:
        model, tokenizer = _trained(pretraining, folder / CHECKPOINT)
        model.save_pretrained(folder)
        write_tokenizer(tokenizer, folder, longest_tokens=_LONGEST_TEXT_TOKENS)
        (folder / RECIPE).write_text(dump_yaml(pretraining))
        phase = pretraining.phases[-1]
        accuracy = accuracy_by_demonstrations(
            model, tokenizer, tasks=phase.tasks, examples=phase.episode_examples, episodes=_EVALUATED_EPISODES
        )
    log.info("%s: model.safetensors %s", output, file_sha256(output / "model.safetensors"))
    return accuracy


def _trained(pretraining: Pretraining, checkpoint: Path) -> tuple[PreTrainedModel, Tokenizer]:
    set_seed(pretraining.seed)
    tokenizer = family_tokenizer()
    phase_of = [phase for phase in pretraining.phases for _ in range(phase.steps)]

    def loss(model: PreTrainedModel, step: int) -> torch.Tensor:
        texts, first_positions = draw_batch(pretraining, phase_of[step], step, tokenizer)
        return answer_loss(model, texts, pretraining.language_model_weight, first_positions)

    model = pretraining_loop(
        new_model(pretraining.model, tokenizer.get_vocab_size()),
        loss,
        phases=pretraining.phases,
        weight_decay=pretraining.weight_decay,
        max_gradient_norm=pretraining.max_gradient_norm,
        mixed_precision="no",
        checkpoint=checkpoint,
        checkpoint_every_steps=pretraining.checkpoint_every_steps,
        recipe=digest_of(pretraining.model_dump(mode="json")),
        description=f"train {pretraining.name}",
    )
    return model.cpu(), tokenizer


def draw_batch(
    pretraining: Pretraining, phase: Phase, step: int, tokenizer: Tokenizer
) -> tuple[Texts, list[int]]:
    """The batch of one step, and the position of each text's first token.

    Everything is drawn from the step's own seed, so that a resumed run sees the same batches. Most texts
    start anywhere in the context: what is learned must not depend on absolute positions.
    """
    rng = random.Random(f"{pretraining.name}/{pretraining.seed}/{step}")
    texts = _texts(rng, pretraining, phase)
    batch = encode(tokenizer, texts)
    room = pretraining.model.positions - batch.tokens.shape[1]
    return batch, [rng.randint(0, room) if rng.random() < 0.7 else 0 for _ in texts]


def _texts(rng: random.Random, pretraining: Pretraining, phase: Phase) -> list[str]:
    kind = rng.random()
    story, named = kind < phase.story_share, kind < phase.story_share + phase.named_share
    examples = phase.named_examples if named else phase.episode_examples
    if story:
        examples = pretraining.story_premises

    def domains() -> list[str]:
        away = pretraining.out_of_domain_share
        return ["out_of_domain" if rng.random() < away else "in_domain" for _ in range(examples)]

    def task() -> str:
        if named and rng.random() < phase.named_entailment_share:
            return "entailment"
        return rng.choice(phase.tasks)

    count = max(8, round(phase.tokens_per_step / (16 * examples)))
    if story:
        return [story_text(rng, domains=domains(), split="train") for _ in range(count)]
    return [episode_text(rng, task=task(), domains=domains(), split="train", named=named) for _ in range(count)]
