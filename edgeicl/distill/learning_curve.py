"""Accuracy of a built-in model by the number of demonstrations it sees, on texts it was never trained on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from edgeicl.distill.episodes import encode, episode_text


def accuracy_by_demonstrations(
    model: nn.Module, tokenizer: Tokenizer, *, tasks: Sequence[str], examples: int, episodes: int
) -> dict[str, Any]:
    """Domain of the query -> task -> accuracy after 0, 1, ... `examples` - 1 demonstrations.

    Demonstrations are in-domain throughout. In the domain, every example of an episode is judged with those
    before it as demonstrations; out of it, the last alone is, so only the largest number is known there.
    """
    result: dict[str, Any] = {"episodes": episodes, "in_domain": {}, "out_of_domain": {}}
    for task in tasks:
        for query_domain in ("in_domain", "out_of_domain"):
            rng = random.Random(f"learning curve/{task}/{query_domain}")
            domains = ["in_domain"] * (examples - 1) + [query_domain]
            texts = [episode_text(rng, task=task, domains=domains, split="test") for _ in range(episodes)]
            accuracy = _accuracy_by_position(model, tokenizer, texts, examples)
            if query_domain == "in_domain":
                result["in_domain"][task] = dict(enumerate(accuracy))
            else:
                rng = random.Random(f"learning curve/{task}/alone")
                alone = [
                    episode_text(rng, task=task, domains=[query_domain], split="test") for _ in range(episodes)
                ]
                (zero_shot,) = _accuracy_by_position(model, tokenizer, alone, 1)
                result["out_of_domain"][task] = {0: zero_shot, examples - 1: accuracy[-1]}
    return result


def _accuracy_by_position(
    model: nn.Module, tokenizer: Tokenizer, texts: list[str], examples: int
) -> list[float]:
    yes, no = tokenizer.token_to_id("ĠYes"), tokenizer.token_to_id("ĠNo")
    right = np.zeros((len(texts), examples), dtype=bool)
    for first in range(0, len(texts), 100):
        batch = encode(tokenizer, texts[first : first + 100])
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(batch.tokens), use_cache=False).logits.numpy()
        rows, columns = np.nonzero(batch.answer_mask)
        says_yes = logits[rows, columns, yes] > logits[rows, columns, no]
        is_yes = batch.tokens[rows, columns + 1] == yes
        right[first : first + 100] = (says_yes == is_yes).reshape(-1, examples)
    return [round(float(value), 4) for value in right.mean(axis=0)]
