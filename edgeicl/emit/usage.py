"""How an app asks the artifact, as code that runs in its folder: part of the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from edgeicl.specs.manifest import TaskFile
from edgeicl.specs.pattern import pattern_columns


def usage(
    task: TaskFile,
    provider: Literal["cpu", "cuda"] = "cpu",
    *,
    inputs: Mapping[str, str] = MappingProxyType({}),
    last_only: bool = True,
    genai_reads_text: bool = True,
) -> str:
    """A section of the model card: a label with onnxruntime, then tokens with onnxruntime-genai.

    `inputs` are the graph's, as genai_config.json names them; `last_only`: whether it has logits of the last
    token alone; `genai_reads_text`: whether onnxruntime-genai's tokenizer gives the ids of tokenizer.json.
    """
    if task.logit_tokens is not None:
        return _label_usage(task, provider)
    columns = ", ".join(f'"{column}": "..."' for column in pattern_columns(task.pattern))
    several = any(len(tokens) > 1 for tokens in task.verbalizer_tokens.values())
    behind = task.prefix is not None
    positions = _POSITIONS if "position_ids" in inputs else ""
    parts = [
        _BEHIND_PREFIX if behind else _ALONE if last_only else _EXPORTED,
        f"""```python
{_opened(behind, provider)}

def label_scores(columns, cache):
    before = next(iter(cache.values())).shape[2]
    scores = {{}}
    for label, tokens in task["verbalizer_tokens"].items():
        ids = tokenizer.encode(task["pattern"].format(**columns){_NO_SPECIAL if behind else ""}).ids
        scores[label] = 0.0
        for token in tokens:  # log-probabilities of a label's tokens add up
            feeds = {{"input_ids": [ids], "attention_mask": [[1] * (before + len(ids))]}}{positions}
            feeds = {{name: np.array(values, np.int64) for name, values in feeds.items()}}
            logits = session.run(["logits"], feeds | cache)[0][0, -1].astype(np.float64)
            scores[label] += float(logits[token] - np.logaddexp.reduce(logits))
            ids = [*ids, token]
    return scores


{_vote(columns) if behind else _one_answer(columns)}
```""",
        f"{_SEVERAL if several else _ONE} Feeding `present.*` back as `past_key_values.*`\n"
        "continues a text without reading it again.",
        _genai(task, provider, reads_text=genai_reads_text),
    ]
    return "\n\n".join(["## Use", *parts])


def _label_usage(task: TaskFile, provider: Literal["cpu", "cuda"]) -> str:
    """The same for an artifact that has logits of labels alone: one run, and no tokens."""
    columns = ", ".join(f'"{column}": "..."' for column in pattern_columns(task.pattern))
    behind = task.prefix is not None
    code = f"""```python
{_opened(behind, provider)}

def label_scores(columns, cache):
    before = next(iter(cache.values())).shape[2]
    ids = tokenizer.encode(task["pattern"].format(**columns){_NO_SPECIAL if behind else ""}).ids
    feeds = {{"input_ids": [ids], "attention_mask": [[1] * (before + len(ids))]}}
    feeds = {{name: np.array(values, np.int64) for name, values in feeds.items()}}
    logits = session.run(["logits"], feeds | cache)[0][0, -1].astype(np.float64)
    logits -= np.logaddexp.reduce(logits)
    # one column a label: its token is at the same place in logit_tokens
    column = {{token: place for place, token in enumerate(task["logit_tokens"])}}
    return {{label: float(logits[column[ids[0]]]) for label, ids in task["verbalizer_tokens"].items()}}


{_vote(columns) if behind else _one_answer(columns)}
```"""
    return "\n\n".join(["## Use", _BEHIND_PREFIX if behind else _ALONE, code, _LABELS_ALONE])


def _opened(behind: bool, provider: Literal["cpu", "cuda"]) -> str:
    """The start of both: task, tokenizer, session, and what goes into the cache."""
    providers = json.dumps(_PROVIDERS[provider])
    return f"""import json

import numpy as np
import onnxruntime as ort
{_PREFIX_IMPORT if behind else ""}from tokenizers import Tokenizer

task = json.load(open("task.json"))
tokenizer = Tokenizer.from_file("tokenizer.json")
session = ort.InferenceSession("model.onnx", providers={providers})
{_PREFIX_CACHES if behind else _EMPTY_CACHE}"""


def _one_answer(columns: str) -> str:
    return f"""scores = label_scores({{{columns}}}, empty)
print(max(scores, key=scores.get))"""


def _vote(columns: str) -> str:
    return f"""scores = [label_scores({{{columns}}}, cache) for cache in sets]
votes = [max(found, key=found.get) for found in scores]
totals = [np.logaddexp.reduce([*found.values()]) for found in scores]
shares = [{{label: np.exp(found[label] - total) for label in found}} for found, total in zip(scores, totals)]
sums = {{label: sum(share[label] for share in shares) for label in scores[0]}}
# the majority of the sets; of a tie, the label with the highest mean probability
print(max(sums, key=lambda label: (votes.count(label), sums[label])))"""


def _genai(task: TaskFile, provider: Literal["cpu", "cuda"], *, reads_text: bool) -> str:
    """How onnxruntime-genai continues a text; it is handed ids unless its tokenizer `reads_text` rightly."""
    if task.prefix is not None and task.prefix.kind == "vectors":
        return "onnxruntime-genai takes tokens only and can't be handed this prefix: it runs the model without."
    imports = _TOKENIZERS_IMPORT * (not reads_text)
    tokenizer = "og.Tokenizer(model)" if reads_text else 'Tokenizer.from_file("tokenizer.json")'
    notes = _NEEDS_GPU * (provider == "cuda") + _MISREADS * (not reads_text)
    if task.prefix is None:
        ids = 'tokenizer.encode("...")' + ".ids" * (not reads_text)
        return f"""\
With onnxruntime-genai, which does that by itself.{notes}

```python
import onnxruntime_genai as og
{imports}
model = og.Model(".")
tokenizer = {tokenizer}
{_LEADING_TOKEN * reads_text}parameters = og.GeneratorParams(model)
parameters.set_search_options(max_length=64)
generator = og.Generator(model, parameters)
generator.append_tokens({ids})
generator.generate_next_token()
print(tokenizer.decode({_decoded("generator.get_sequence(0)", reads_text)}))
```"""
    query = "query" if reads_text else "query, add_special_tokens=False"
    ids = f"tokenizer.encode({query})" + ".ids" * (not reads_text)
    return f"""\
With onnxruntime-genai, which takes tokens only: it reads those of a set once, and is rewound to their end
before each query.{notes}

```python
import onnxruntime_genai as og
from safetensors.numpy import load_file
{imports}
model = og.Model(".")
tokenizer = {tokenizer}
before = load_file("prefix.safetensors")["0.input_ids"].astype("int32")
parameters = og.GeneratorParams(model)
parameters.set_search_options(max_length=len(before) + 64)
generator = og.Generator(model, parameters)
generator.append_tokens(before)
for query in ["..."]:
    generator.rewind_to(len(before))
    generator.append_tokens({ids})
    generator.generate_next_token()
    print(tokenizer.decode({_decoded("generator.get_next_tokens()", reads_text)}))
```"""


def _decoded(tokens: str, reads_text: bool) -> str:
    return tokens if reads_text else f"{tokens}.tolist()"  # the library tokenizers takes lists


_ALONE = """\
With onnxruntime and tokenizers, in this folder. The tokenizer puts the leading token there itself. The graph
gives logits for the last token only; rows of a batch are padded on the right, and the mask says where they
end."""

_EXPORTED = """\
With onnxruntime and tokenizers, in this folder. The tokenizer puts the leading token there itself. The graph is
Optimum's: it gives logits for every token, and a text at a time is the sure way to read it."""

_POSITIONS = """
            feeds["position_ids"] = [[*range(before, before + len(ids))]]"""

_BEHIND_PREFIX = """\
With onnxruntime, tokenizers and safetensors, in this folder. `prefix.safetensors` holds the keys and values of
what stands before every query, one set after another; they go into the cache as they are, and a query follows
without leading tokens. The graph gives logits for the last token only. Behind a prefix the runtime reads one
query at a time: it refuses a batch."""

_PREFIX_IMPORT = "from safetensors.numpy import load_file\n"
_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
_NO_SPECIAL = ", add_special_tokens=False"

_EMPTY_CACHE = """\
caches = [entry for entry in session.get_inputs() if entry.name.startswith("past_key_values.")]
numbers = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
shapes = {entry.name: (1, entry.shape[1], 0, entry.shape[3]) for entry in caches}
empty = {entry.name: np.zeros(shapes[entry.name], numbers[entry.type]) for entry in caches}
"""

_PREFIX_CACHES = """\
numbers = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
types = {entry.name: entry.type for entry in session.get_inputs()}
sets = [{} for _ in task["prefix"]["tokens"]]
for name, rows in load_file("prefix.safetensors").items():
    number, _, name = name.partition(".")
    if name.startswith("past_key_values."):
        sets[int(number)][name] = rows[None].astype(numbers[types[name]])
"""

_LABELS_ALONE = """\
This artifact has logits of its labels' tokens alone: `logit_tokens` in `task.json` says which token each column
is. A query is one run without a product with the vocabulary. Nothing can be generated, so there are no files
for onnxruntime-genai or for `generate` of transformers."""

_ONE = "Each label is one token here, so one run with both scores read from it is enough."
_SEVERAL = "Labels of several tokens cost a run for each token."

_TOKENIZERS_IMPORT = "from tokenizers import Tokenizer\n"
_LEADING_TOKEN = """\
tokenizer.update_options(add_special_tokens="true")  # puts the leading token there, which the model needs
"""
_NEEDS_GPU = "\nThis artifact's `genai_config.json` names CUDA: it needs onnxruntime-genai-cuda and a GPU."
_MISREADS = "\nIts own tokenizer misreads this `tokenizer.json`, so it is handed the ids that tokenizers makes."
