"""Trains a built-in model from nothing: first what the tasks mean, then to tell them from demonstrations.

What makes small models learn here, and what does not, is told in docs/results/built-in-models.md: named
texts of one example before any task has to be told from demonstrations, a language-model loss on the texts
themselves, and attention that starts by looking for the token it stands on.
"""

from __future__ import annotations

import logging
import math
import os
import random
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import OPTConfig, OPTForCausalLM

from edgeicl.distill.checkpoint import newest_checkpoint, save_checkpoint
from edgeicl.distill.episodes import Texts, encode, episode_text
from edgeicl.distill.learning_curve import accuracy_by_demonstrations
from edgeicl.errors import EdgeiclError
from edgeicl.progress import track
from edgeicl.replacement import replacing
from edgeicl.specs.loading import dump_yaml
from edgeicl.specs.pretraining import Phase, Pretraining, Shape
from edgeicl.store import CHECKPOINT, digest_of, file_sha256
from edgeicl.tasks.nli_stories import story_text
from edgeicl.tasks.nli_tokenizer import family_tokenizer, write_tokenizer

log = logging.getLogger(__name__)

RECIPE = "pretraining.resolved.yaml"
"""The recipe with every default, in the model's folder: what has it was made here and may be replaced."""

_LAYERS_OF_LIKE_TO_LIKE = 3
# Wavelengths from 2 pi to 2 pi times this. Far below the usual 10,000, which near and far tokens look alike to.
_SLOWEST = 100
_EVALUATED_EPISODES = 500


def pretrain(pretraining: Pretraining, output: Path) -> dict[str, Any]:
    """Trains the model of `pretraining` into `output`; returns accuracy by number of demonstrations.

    A killed run goes on from its last checkpoint, beside `output`, and ends with the same weights.

    Raises:
        DataError: `output` holds something else, or can't be written.
        EdgeiclError: more than one process was launched; so small a model is trained in one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise EdgeiclError(
            f"pretrain runs in one process; found WORLD_SIZE {os.environ['WORLD_SIZE']}",
            next_step="start it without a launcher",
        )
    with replacing(output, RECIPE, keep=CHECKPOINT) as folder:
        model, tokenizer = _trained(pretraining, folder / CHECKPOINT)
        model.save_pretrained(folder)
        write_tokenizer(folder)
        (folder / RECIPE).write_text(dump_yaml(pretraining))
        phase = pretraining.phases[-1]
        accuracy = accuracy_by_demonstrations(
            model, tokenizer, tasks=phase.tasks, examples=phase.episode_examples, episodes=_EVALUATED_EPISODES
        )
    log.info("%s: model.safetensors %s", output, file_sha256(output / "model.safetensors"))
    return accuracy


def _trained(pretraining: Pretraining, checkpoint: Path) -> tuple[OPTForCausalLM, Tokenizer]:
    recipe = digest_of(pretraining.model_dump(mode="json"))
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    set_seed(pretraining.seed)
    tokenizer = family_tokenizer()
    model = new_model(pretraining.model, tokenizer.get_vocab_size())
    optimizer = torch.optim.AdamW(
        model.parameters(),
        betas=(0.9, 0.98),
        weight_decay=pretraining.weight_decay,
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    start = 0
    if found := newest_checkpoint(checkpoint, recipe=recipe):
        accelerator.load_state(str(found))
        start = int(found.name)
        log.info("going on at step %d", start)
    schedule = [(phase, step) for phase in pretraining.phases for step in range(phase.steps)]
    with track(f"train {pretraining.name}", len(schedule), already_done=start) as advance:
        for step in range(start, len(schedule)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(*schedule[step])
            texts, first_positions = draw_batch(pretraining, schedule[step][0], step, tokenizer)
            loss = training_loss(
                model, texts, first_positions, pretraining.language_model_weight, accelerator.device
            )
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), pretraining.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad()
            advance(1)
            if (step + 1) % pretraining.checkpoint_every_steps == 0:
                save_checkpoint(
                    checkpoint, step + 1, lambda folder: accelerator.save_state(str(folder)), recipe=recipe
                )
                log.info("step %d: training loss %.3f", step + 1, loss.item())
    return accelerator.unwrap_model(model).cpu().eval(), tokenizer


def new_model(shape: Shape, vocabulary: int) -> OPTForCausalLM:
    """An untrained model, started so that it learns sooner.

    Learned positions start as sinusoids. In the first layers, half of the heads have equal query and key
    weights, so that a token attends to its own like (mimetic initialization, arXiv 2305.09828).
    """
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=vocabulary,
            hidden_size=shape.width,
            word_embed_proj_dim=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            ffn_dim=shape.ffn_width,
            max_position_embeddings=shape.positions,
            init_std=shape.initial_std,
            dropout=0.0,
            attention_dropout=0.0,
        )
    )
    positions = model.model.decoder.embed_positions.weight
    angles = torch.arange(positions.shape[0])[:, None] / _SLOWEST ** torch.linspace(0, 1, shape.width // 2)
    with torch.no_grad():
        positions.copy_(torch.cat([angles.sin(), angles.cos()], dim=1) * shape.initial_std * math.sqrt(2))
        for layer in model.model.decoder.layers[:_LAYERS_OF_LIKE_TO_LIKE]:
            alike = slice(0, shape.width // 2)
            layer.self_attn.k_proj.weight[alike] = layer.self_attn.q_proj.weight[alike]
    return model


def learning_rate(phase: Phase, step: int) -> float:
    """Linear warm-up, then a cosine down to the phase's lowest; `step` counts from the phase's first."""
    warmup = min(1.0, (step + 1) / phase.warmup_steps)
    lowest = phase.final_learning_rate_ratio
    cosine = 0.5 * (1.0 + math.cos(math.pi * step / phase.steps))
    return phase.learning_rate * warmup * (lowest + (1.0 - lowest) * cosine)


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


def training_loss(
    model: nn.Module,
    texts: Texts,
    first_positions: list[int],
    language_model_weight: float,
    device: torch.device,
) -> torch.Tensor:
    """Mean cross-entropy at answers plus a weighted mean over all other tokens, in nats; scalar."""
    tokens = torch.from_numpy(texts.tokens).to(device)
    positions = torch.arange(tokens.shape[1])[None] + torch.tensor(first_positions)[:, None]
    logits = model(input_ids=tokens, position_ids=positions.to(device), use_cache=False).logits
    losses = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    ).view(tokens.shape[0], -1)
    at_answer = torch.from_numpy(texts.answer_mask[:, :-1]).to(device)
    elsewhere = torch.from_numpy(texts.token_mask[:, 1:]).to(device) & ~at_answer
    return losses[at_answer].mean() + language_model_weight * losses[elsewhere].mean()
