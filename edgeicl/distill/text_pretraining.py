"""Trains a small model on real text: the language first, then tasks from demonstrations (`kind: text`)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from edgeicl.distill.answer_loss import answer_loss
from edgeicl.distill.episodes import Texts
from edgeicl.distill.new_model import new_model
from edgeicl.distill.pretrain import RECIPE
from edgeicl.distill.pretraining_loop import check_one_process, pretraining_loop
from edgeicl.distill.text_batches import Episode, Queries, TextBatches, label_words, texts_of
from edgeicl.distill.word_vectors import word_vectors
from edgeicl.errors import DataError
from edgeicl.models.loading import load_model, load_tokenizer
from edgeicl.models.model_folder import model_folder, weights_digest
from edgeicl.replacement import replacing
from edgeicl.specs.loading import dump_yaml
from edgeicl.specs.pattern import pattern_columns
from edgeicl.specs.text_pretraining import EpisodeTask, TextPhase, TextPretraining
from edgeicl.store import CHECKPOINT, digest_of
from edgeicl.tasks.byte_level_tokenizer import learn_tokenizer, write_tokenizer
from edgeicl.tasks.example import Example
from edgeicl.tasks.examples_digest import examples_digest
from edgeicl.tasks.leakage import normalized
from edgeicl.tasks.prompt import query_text
from edgeicl.tasks.readers import read_examples
from edgeicl.tasks.text_source import read_texts

log = logging.getLogger(__name__)

_EVALUATED_EPISODES = 200
_EVALUATED_AT_ONCE = 20
_ENCODED_AT_ONCE = 1000


def pretrain_on_text(recipe: TextPretraining, output: Path, *, base_folder: Path) -> dict[str, Any]:
    """Trains the model of `recipe` into `output`; returns accuracy by task and number of demonstrations.

    A killed run goes on from its last checkpoint, beside `output`.

    Raises:
        DataError: `output` holds something else, or data that can't be used.
        EdgeiclError: more than one process was launched.
    """
    check_one_process()
    with replacing(output, RECIPE, keep=CHECKPOINT) as folder:
        run = _TextPretraining(recipe, base_folder)
        model = run.train(folder / CHECKPOINT)
        accuracy = run.evaluate(model)
        model.cpu().save_pretrained(folder)
        write_tokenizer(run.tokenizer, folder, longest_tokens=run.positions)
        (folder / RECIPE).write_text(dump_yaml(recipe))
    return accuracy


class _TextPretraining:
    """One run: its texts as tokens, its tasks, its model."""

    def __init__(self, recipe: TextPretraining, base_folder: Path) -> None:
        self.recipe = recipe
        set_seed(recipe.seed)
        texts = [text for source in recipe.text for text in read_texts(source, base_folder=base_folder)]
        evaluated = _read(recipe.evaluation, base_folder)
        trained = without_texts_of(evaluated.values(), _read(recipe.tasks, base_folder))
        self._start = model_folder(recipe.start_from, base_folder=base_folder) if recipe.start_from else None
        self.tokenizer = self._tokenizer([*texts, *_examples_as_text(recipe.tasks, trained)], base_folder)
        documents = list(self._encoded(texts))
        self._model = self._load(documents)
        self.positions = int(self._model.config.max_position_embeddings)
        before, _, after = recipe.document_pattern.partition("{text}")
        self.batches = TextBatches(
            self.tokenizer,
            documents,
            {name: self._pool(recipe.tasks[name], examples) for name, examples in trained.items()},
            words=label_words(self.tokenizer, recipe.label_words),
            own_words={name: self._own_words(task) for name, task in recipe.tasks.items() if task.words},
            separator=recipe.separator,
            positions=self.positions,
            around=(self._ids(before), self._ids(after)),
        )
        self.evaluation = {
            name: self._pool(recipe.evaluation[name], examples) for name, examples in evaluated.items()
        }
        # Settings alone do not say what lies in a file, nor what is started from.
        self.digest = digest_of(
            [
                recipe.model_dump(mode="json"),
                digest_of(texts),
                examples_digest(trained.items()),
                self._start and weights_digest(self._start),
                self.tokenizer.to_str(),
            ]
        )

    def train(self, checkpoint: Path) -> PreTrainedModel:
        """The trained model, on the device that it was trained on."""
        recipe = self.recipe
        phase_of = [phase for phase in recipe.phases for _ in range(phase.steps)]
        # The next batch is drawn while the model works on this one.
        with ThreadPoolExecutor(max_workers=1) as drawing:
            coming: dict[int, Future[Texts]] = {}

            def loss(model: PreTrainedModel, step: int) -> torch.Tensor:
                this = coming.pop(step, None)
                if step + 1 < len(phase_of):
                    coming[step + 1] = drawing.submit(self._draw, phase_of[step + 1], step + 1)
                texts = this.result() if this else self._draw(phase_of[step], step)
                return answer_loss(model, texts, recipe.language_model_weight)

            return pretraining_loop(
                self._model,
                loss,
                phases=recipe.phases,
                weight_decay=recipe.weight_decay,
                max_gradient_norm=recipe.max_gradient_norm,
                mixed_precision=recipe.mixed_precision,
                checkpoint=checkpoint,
                checkpoint_every_steps=recipe.checkpoint_every_steps,
                recipe=self.digest,
                description=f"train {recipe.name}",
            )

    def evaluate(self, model: PreTrainedModel) -> dict[str, Any]:
        """Task -> demonstrations before the query -> accuracy on texts that were never trained on."""
        examples = self.recipe.phases[-1].episode_examples
        result: dict[str, Any] = {"episodes": _EVALUATED_EPISODES, "accuracy": {}}
        for name, pool in self.evaluation.items():
            rng = np.random.default_rng([self.recipe.seed, 1])
            task = self.recipe.evaluation[name]
            own = self._own_words(task) if task.words else None
            drawn = [self.batches.episode(rng, pool, examples, own) for _ in range(_EVALUATED_EPISODES)]
            result["accuracy"][name] = accuracy_by_place(model, drawn)
        return result

    def _tokenizer(self, texts: Sequence[str], base_folder: Path) -> Tokenizer:
        if self._start:
            return load_tokenizer(self._start)
        if self.recipe.tokenizer_from:
            return load_tokenizer(model_folder(self.recipe.tokenizer_from, base_folder=base_folder))
        return learn_tokenizer(texts, vocabulary=self.recipe.vocabulary)

    def _load(self, documents: Sequence[NDArray[np.int32]]) -> PreTrainedModel:
        if self._start:
            return load_model(self._start)
        shape = self.recipe.model
        assert shape is not None  # the schema sees to it
        vocabulary = self.tokenizer.get_vocab_size()
        model = new_model(shape, vocabulary)
        if self.recipe.embeddings == "cooccurrence":
            log.info("word vectors from %d documents", len(documents))
            vectors = word_vectors(documents, vocabulary=vocabulary, width=shape.width, seed=self.recipe.seed)
            with torch.no_grad():
                model.get_input_embeddings().weight.copy_(torch.from_numpy(vectors) * shape.initial_std)
        return model

    def _draw(self, phase: TextPhase, step: int) -> Texts:
        rng = np.random.default_rng([self.recipe.seed, step])
        kind = rng.random()
        if kind < phase.plain_share:
            return self.batches.plain(
                rng, tokens_per_step=phase.tokens_per_step, text_tokens=phase.plain_tokens
            )
        if kind < phase.plain_share + phase.document_share:
            return self.batches.document_episodes(
                rng,
                tokens_per_step=phase.tokens_per_step,
                examples=phase.episode_examples,
                passage_tokens=phase.passage_tokens,
                classes=phase.document_classes,
            )
        return self.batches.episodes(
            rng,
            tokens_per_step=phase.tokens_per_step,
            examples=phase.episode_examples,
            fixed_share=phase.fixed_share,
            tasks=phase.tasks,
        )

    def _pool(self, task: EpisodeTask, examples: Sequence[Example]) -> Queries:
        by_label: dict[str, list[tuple[int, ...]]] = {}
        for example in examples:
            ids = self._ids(query_text(task.pattern, example))
            by_label.setdefault(example.label, []).append(tuple(ids))
        if task.words and set(task.words) != set(by_label):
            raise DataError(
                f"{task.data}: found the labels {', '.join(sorted(by_label))}; words has "
                f"{', '.join(sorted(task.words))}",
                next_step="give every label of the data a word, or none",
            )
        if len(by_label) < 2:
            raise DataError(f"{task.data}: found the label {', '.join(by_label)}; expected at least two")
        return [by_label[label] for label in sorted(by_label)]

    def _own_words(self, task: EpisodeTask) -> list[int]:
        """In the order of the classes of its pool."""
        return label_words(self.tokenizer, [task.words[label] for label in sorted(task.words)])

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _encoded(self, texts: Sequence[str]) -> Iterator[NDArray[np.int32]]:
        for first in range(0, len(texts), _ENCODED_AT_ONCE):
            some = list(texts[first : first + _ENCODED_AT_ONCE])
            for encoding in self.tokenizer.encode_batch(some, add_special_tokens=False):
                yield np.array(encoding.ids, dtype=np.int32)


def without_texts_of(
    evaluated: Iterable[Sequence[Example]], tasks: Mapping[str, Sequence[Example]]
) -> dict[str, list[Example]]:
    """`tasks` without the examples that have a text in common with `evaluated`, which is told."""
    kept_apart = {
        normalized(text) for examples in evaluated for one in examples for text in one.columns.values()
    }
    result = {}
    for name, examples in tasks.items():
        result[name] = [
            one for one in examples if not any(normalized(text) in kept_apart for text in one.columns.values())
        ]
        log.info("%s: %d of %d examples; the others are evaluated on", name, len(result[name]), len(examples))
    return result


@torch.inference_mode()
def accuracy_by_place(model: PreTrainedModel, episodes: Sequence[Episode]) -> dict[int, float]:
    """Demonstrations before -> share of the examples whose own label word is the likeliest of the episode's."""
    right: dict[int, list[bool]] = {}
    for first in range(0, len(episodes), _EVALUATED_AT_ONCE):
        some = episodes[first : first + _EVALUATED_AT_ONCE]
        tokens = torch.from_numpy(texts_of(some).tokens).to(model.device)
        logits = model(input_ids=tokens, use_cache=False).logits.float().cpu().numpy()
        for row, one in enumerate(some):
            for place, answer in enumerate(one.answers):
                best = one.words[int(logits[row, answer - 1, list(one.words)].argmax())]
                right.setdefault(place, []).append(best == one.ids[answer])
    return {place: round(float(np.mean(hits)), 4) for place, hits in right.items()}


def _read(tasks: Mapping[str, EpisodeTask], base_folder: Path) -> dict[str, list[Example]]:
    """Examples by task, with the columns of its pattern alone: the others are no text of the example."""
    found = {}
    for name, task in tasks.items():
        columns = pattern_columns(task.pattern)
        found[name] = [
            replace(one, columns={key: text for key, text in one.columns.items() if key in columns})
            for one in read_examples(task.data, labels=None, base_folder=base_folder)
        ]
    return found


def _examples_as_text(
    tasks: Mapping[str, EpisodeTask], examples: Mapping[str, Sequence[Example]]
) -> Iterator[str]:
    return (query_text(task.pattern, one) for name, task in tasks.items() for one in examples[name])
