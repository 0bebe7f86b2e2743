"""How an app asks the artifact, as code that runs in its folder: part of the model card."""

from __future__ import annotations

from edgeicl.specs.manifest import TaskFile
from edgeicl.specs.pattern import pattern_columns


def usage(task: TaskFile) -> str:
    """A section of the model card: a label with onnxruntime, then tokens with onnxruntime-genai."""
    columns = ", ".join(f'"{column}": "..."' for column in pattern_columns(task.pattern))
    several = any(len(tokens) > 1 for tokens in task.verbalizer_tokens.values())
    return f"""## Use

With onnxruntime and tokenizers, in this folder. The tokenizer puts the leading token there itself. The graph
gives logits for the last token only; rows of a batch are padded on the right, and the mask says where they end.

```python
import json

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

task = json.load(open("task.json"))
decoder = json.load(open("genai_config.json"))["model"]["decoder"]
tokenizer = Tokenizer.from_file("tokenizer.json")
session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
empty = np.zeros((1, decoder["num_key_value_heads"], 0, decoder["head_size"]), np.float32)
layers = range(decoder["num_hidden_layers"])
cache = {{f"past_key_values.{{i}}.{{kind}}": empty for i in layers for kind in ("key", "value")}}


def label_scores(columns):
    scores = {{}}
    for label, tokens in task["verbalizer_tokens"].items():
        ids = tokenizer.encode(task["pattern"].format(**columns)).ids
        scores[label] = 0.0
        for token in tokens:  # log-probabilities of a label's tokens add up
            row = np.array([ids])
            feeds = {{"input_ids": row, "attention_mask": np.ones_like(row), **cache}}
            logits = session.run(["logits"], feeds)[0][0, -1].astype(np.float64)
            scores[label] += float(logits[token] - np.logaddexp.reduce(logits))
            ids = [*ids, token]
    return scores


scores = label_scores({{{columns}}})
print(max(scores, key=scores.get))
```

{_SEVERAL if several else _ONE} Feeding `present.*` back as `past_key_values.*`
continues a text without reading it again.

With onnxruntime-genai, which does that by itself:

```python
import onnxruntime_genai as og

model = og.Model(".")
tokenizer = og.Tokenizer(model)
tokenizer.update_options(add_special_tokens="true")  # puts the leading token there, which the model needs
parameters = og.GeneratorParams(model)
parameters.set_search_options(max_length=64)
generator = og.Generator(model, parameters)
generator.append_tokens(tokenizer.encode("..."))
generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0)))
```"""


_ONE = "Each label is one token here, so one run with both scores read from it is enough."
_SEVERAL = "Labels of several tokens cost a run for each token."
