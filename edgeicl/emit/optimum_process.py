"""Optimum's ORTModelForCausalLM on a folder: a script for the interpreter that has it, without imports of ours.

A request in JSON on stdin (folder, prompts, tokens: how many after each), as the last line of stdout what was
generated.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Greedy tokens after each prompt, up to the one that ends a text."""
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM

    request = json.load(sys.stdin)
    model = ORTModelForCausalLM.from_pretrained(request["folder"], local_files_only=True)
    generated = []
    for prompt, count in zip(request["prompts"], request["tokens"], strict=True):
        ids = torch.tensor([prompt])
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
        generated.append(found[0, len(prompt) :].tolist())
    sys.stdout.write("\n" + json.dumps(generated) + "\n")


if __name__ == "__main__":
    main()
