"""Every real data set through the readers and the shipped recipes, with the counts that are known of it."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeicl.distill.task_data import TaskData, deal
from edgeicl.errors import DataError
from edgeicl.specs.catalog import load_recipe
from edgeicl.specs.lama_template import around_answer
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.source import Source
from edgeicl.tasks.example import Example
from edgeicl.tasks.label_words import with_label_words
from edgeicl.tasks.readers import read_examples

REAL = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not REAL.exists(), reason="real data (shared/data beside the repository) is absent"
)

NLI = ("entailment", "neutral", "contradiction")
SEEDS = (13, 21, 42, 87, 100)
SPLITS = {
    # LM-BFF task: files, labels, texts of the test set (none where it has no file), how its rows are named
    "SST-2": ("tsv", "01", 872, {"rename": {"sentence": "text"}}),
    "mr": ("csv", "01", 2000, {"columns": ["label", "text"]}),
    "cr": ("csv", "01", 2000, {"columns": ["label", "text"]}),
    "mpqa": ("csv", "01", 2000, {"columns": ["label", "text"]}),
    "subj": ("csv", "01", 2000, {"columns": ["label", "text"]}),
    "trec": ("csv", "012345", 500, {"columns": ["label", "text"]}),
    "sst-5": ("csv", "01234", 2210, {"columns": ["label", "text"]}),
    "CoLA": ("tsv", "01", 1043, {"columns": ["source", "label", "mark", "text"]}),
    "MRPC": ("tsv", "01", 408, {"label": "Quality", "rename": {"#1 String": "premise"}}),
    "QQP": ("tsv", "01", None, {"label": "is_duplicate"}),
    "QNLI": ("tsv", ("entailment", "not_entailment"), 5463, {}),
    "RTE": ("tsv", ("entailment", "not_entailment"), 277, {}),
    "MNLI": ("tsv", NLI, None, {"label": "gold_label"}),
    # The header names 11 columns, rows have 11 or 15: labels of one or of five annotators.
    "SNLI": ("tsv", NLI, None, {"label": "gold_label", "drop_labels": ["gold_label"], "columns":
             ["id", "caption", "pair", "b1", "b2", "p1", "p2", "premise", "hypothesis", "...", "gold_label"]}),
}  # fmt: skip


def read(name: str, labels: Sequence[str], **keys: object) -> list[Example]:
    source = Source.model_validate({"source": f"file:{name}"} | keys)
    return read_examples(source, labels=labels, base_folder=REAL)


def labels_of(examples: Sequence[Example]) -> Counter[str]:
    return Counter(example.label for example in examples)


def test_natural_language_inference() -> None:
    dev = read("nli_mnli/mnli_dev_matched.jsonl", NLI)
    assert labels_of(dev) == {"entailment": 3479, "contradiction": 3213, "neutral": 3123}
    for folder, name in (("nli_mnli", "mnli"), ("nli_snli", "snli")):
        assert len(read(f"{folder}/{name}_train_sample.jsonl", NLI)) == 8999
        assert len(read(f"{folder}/{name}_dev_sample.jsonl", NLI)) == 1000
    two = ("entailment", "not_entailment")
    assert [len(read(f"nli_superglue/rte_{part}.jsonl", two)) for part in ("train", "val")] == [2490, 277]
    assert [len(read(f"nli_superglue/cb_{part}.jsonl", NLI)) for part in ("train", "val")] == [250, 56]


def test_hans_by_heuristic_and_label() -> None:
    hans = read(
        "nli_hans/hans_generated_seed1.jsonl.gz", ("entailment", "non-entailment"), breakdown="heuristic"
    )
    heuristics = ("lexical_overlap", "subsequence", "constituent")
    assert Counter((example.group, example.label) for example in hans) == {
        (heuristic, label): 5000 for heuristic in heuristics for label in ("entailment", "non-entailment")
    }


@pytest.mark.parametrize("task", SPLITS)
def test_few_shot_splits(task: str) -> None:
    ending, labels, test_rows, keys = SPLITS[task]
    for seed in SEEDS:
        shown = read(f"kshot_lmbff/{task}/16-{seed}/train.{ending}", tuple(labels), **keys)
        assert labels_of(shown) == dict.fromkeys(labels, 16)
    if test_rows is not None:
        test = read(f"kshot_lmbff/{task}/test.{ending}", tuple(labels), **keys)
        assert len(test) == test_rows


def test_a_damaged_header_is_told_with_its_line() -> None:
    """LM-BFF's SNLI, read without naming its columns."""
    message = r"SNLI/16-13/train\.tsv line \d+: found 15 fields; expected 11: index, captionID"
    with pytest.raises(DataError, match=message):
        read("kshot_lmbff/SNLI/16-13/train.tsv", NLI, label="gold_label")


def test_few_shot_superglue_of_plain_columns() -> None:
    assert len(read("fewglue/RTE_train.jsonl", ("entailment", "not_entailment"))) == 32
    assert len(read("fewglue/CB_train.jsonl", NLI)) == 32
    assert len(read("fewglue/WiC_train.jsonl", ("True", "False"))) == 32
    assert len(read("fewglue/BoolQ_train.jsonl", ("True", "False"))) == 32
    assert labels_of(read("fewglue/COPA_train.jsonl", ("0", "1"))).total() == 32
    names = {"rename": {"target.span1_text": "name", "target.span2_text": "pronoun"}}
    wsc = read("fewglue/WSC_train.jsonl", ("True", "False"), **names)
    assert len(wsc) == 32
    assert (wsc[0].columns["name"], wsc[0].columns["pronoun"], wsc[0].label) == ("Tina", "it", "True")


def test_classification_samples() -> None:
    counts = {
        path.name.removesuffix("_train_sample.jsonl"): sum(1 for _ in path.open())
        for path in sorted((REAL / "cls_10k").glob("*_train_sample.jsonl"))
    }
    assert len(counts) == 12
    for task, count in counts.items():
        with (REAL / "cls_10k" / f"{task}_train_sample.jsonl").open() as rows:
            labels = tuple(sorted({str(json.loads(row)["label"]) for row in rows}))
        assert len(read(f"cls_10k/{task}_train_sample.jsonl", labels)) == count <= 8999


def test_lama_relations_and_templates() -> None:
    name = "lama_trex/lama_original_rob.jsonl.gz"
    with gzip.open(REAL / name, "rt") as rows:
        objects: dict[str, set[str]] = {}
        total = 0
        for line in rows:
            row = json.loads(line)
            objects.setdefault(row["relation"], set()).add(row["obj"])
            total += 1
    assert (len(objects), total) == (40, 51_703)
    born = read(name, tuple(sorted(objects["P19"])), label="obj", where={"relation": "P19", "split": "train"})
    assert len(born) == 800
    assert set(born[0].columns) == {"relation", "split", "sub"}
    with (REAL / "lama_trex" / "relations.jsonl").open() as rows:
        templates = {row["relation"]: row["template"] for row in map(json.loads, rows)}
    unusable = []
    for relation, template in templates.items():
        try:
            pattern, after = around_answer(template)
        except ValueError:
            unusable.append(relation)
            continue
        filled = pattern.format(sub="[X]") + " [Y]" + after
        assert filled.split() == template.replace("[Y]", " [Y] ").split()
    assert unusable == ["P1923"]  # "[Y] participated in the [X] ."


def lama(tmp_path: Path) -> Recipe:
    """The shipped recipe on the file that is here."""
    overrides = []
    for key, split in (("train", "train"), ("in_domain", "test")):
        source = (
            f'{{source: "file:{REAL}/lama_trex/lama_original_rob.jsonl.gz", label: obj, '
            f"where: {{relation: P19, split: {split}}}}}"
        )
        overrides.append(f"task.{key}={source}")
    return with_label_words(load_recipe("lama", overrides), tmp_path)


def test_lama_recipe(tmp_path: Path) -> None:
    recipe = lama(tmp_path)
    assert recipe.task.pattern == "{sub} was born in"
    assert recipe.task.separator == " .\n"
    data = dealt(recipe)
    assert len(data.transfer) + len(data.held_out) == 700
    if (REAL / "tokenizer_opt").exists():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(REAL / "tokenizer_opt")
        assert all(len(tokenizer(word).input_ids) == 2 for word in recipe.task.verbalizers.values())


def dealt(recipe: Recipe, leakage: str | None = None) -> TaskData:
    """What the recipe layer makes of a recipe's data."""
    task, settings = recipe.task, recipe.distill
    labels, shown = tuple(task.verbalizers), settings.demonstrations

    def examples(source: Source) -> list[Example]:
        return read_examples(source, labels=labels, base_folder=REAL)

    return deal(
        examples(task.train),
        examples(task.in_domain),
        pattern=task.pattern,
        labels=labels,
        demonstrations=shown.count,
        balanced=shown.balanced,
        demonstration_seeds=shown.seeds,
        transfer_examples=settings.transfer_examples,
        seed=recipe.seed,
        shown_from={seed: examples(shown.source.for_seed(seed)) for seed in shown.seeds}
        if shown.source
        else {},
        leakage=leakage or settings.leakage,  # type: ignore[arg-type]
    )


def few_shot(task: str, folder: str, ending: str) -> Recipe:
    return load_recipe(
        f"lm-bff-{task}",
        [
            f"task.train.source=file:cls_10k/{task}_train_sample.jsonl",
            f"task.in_domain.source=file:kshot_lmbff/{folder}/test.{ending}",
            f'distill.demonstrations.source.source="file:kshot_lmbff/{folder}/16-{{seed}}/train.{ending}"',
        ],
    )


@pytest.mark.parametrize(
    ("task", "folder", "ending"), [("sst-2", "SST-2", "tsv"), ("mr", "mr", "csv"), ("subj", "subj", "csv")]
)
def test_few_shot_recipes_without_leakage(task: str, folder: str, ending: str) -> None:
    data = dealt(few_shot(task, folder, ending))
    assert data.deviations == ()
    assert [len(shown) for shown in data.demonstrations.values()] == [32] * 5


@pytest.mark.parametrize(("task", "in_pool", "seeds"), [("cr", 2, (13, 42)), ("trec", 9, (42, 87))])
def test_few_shot_recipes_with_leakage(task: str, in_pool: int, seeds: tuple[int, int]) -> None:
    """Test texts stand in LM-BFF's own training splits (CR: the empty one) and in the pool."""
    recipe = few_shot(task, task, "csv")
    with pytest.raises(DataError, match=rf"task\.train: {in_pool} of \d+ texts are in the evaluation data too"):
        dealt(recipe, "refuse")
    found = {deviation.where: deviation.why for deviation in dealt(recipe).deviations}
    assert found == {
        "task.train": f"{in_pool} texts are in the evaluation data too",
        **{
            f"distill.demonstrations.source, seed {seed}": "1 texts are in the evaluation data too"
            for seed in seeds
        },
    }


def test_mnli_shares_no_pair_and_a_few_columns(caplog: pytest.LogCaptureFixture) -> None:
    recipe = load_recipe(
        "opt-1.3b-nli",
        [
            'task.train={source: "file:nli_mnli/mnli_train_sample.jsonl", drop_labels: [neutral]}',
            'task.in_domain={source: "file:nli_mnli/mnli_dev_matched.jsonl", drop_labels: [neutral]}',
        ],
    )
    assert dealt(recipe).deviations == ()
    assert "have the hypothesis of an evaluation example, in another text" in caplog.text
