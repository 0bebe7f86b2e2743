"""AutoRound in a process of its own: a request in JSON on stdin, the answer as the last line of stdout.

Runs in AutoRound's Python, so it imports nothing of edgeicl.

Request: checkpoint (a folder), pieces (a .safetensors file with `pieces`, int64 [pieces, tokens]), options
(formats: bits, group_size, sym; the bytes of every matrix in each by its name), jobs, iterations. A job has an
output (a .safetensors file to write) and either an option, for all matrices, or a limit_bytes, for AutoRound's
search of a scheme among the options. Answer: for each job the option of every matrix, by its index.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file

PIECES = "pieces"
_SCORES = "AR_AUTO_SCHEME_CACHE"
"""Where AutoRound keeps the losses that its search goes by."""
_BATCH_SIZE = 8


class Rounding:
    """A checkpoint, its calibration pieces and the options, for all jobs of a request."""

    def __init__(self, request: dict[str, Any]) -> None:
        from auto_round.calib_dataset import register_dataset
        from datasets import Dataset
        from transformers import AutoTokenizer

        self.checkpoint, self.iterations = request["checkpoint"], request["iterations"]
        self.tokenizer = AutoTokenizer.from_pretrained(self.checkpoint)
        pieces = load_file(request["pieces"])["pieces"]
        self.calibration = {
            "dataset": PIECES,
            "seqlen": pieces.shape[1],
            "nsamples": pieces.shape[0],
            "batch_size": _BATCH_SIZE,
        }
        rows = {"input_ids": pieces.tolist(), "attention_mask": torch.ones_like(pieces).tolist()}
        register_dataset(PIECES)(lambda **_: Dataset.from_dict(rows))
        self.options, self.bytes = request["options"], request["bytes"]
        self.names = sorted(self.bytes)

    def model(self) -> torch.nn.Module:
        """The checkpoint in fp32."""
        from transformers import AutoModelForCausalLM

        found: torch.nn.Module = AutoModelForCausalLM.from_pretrained(self.checkpoint, dtype=torch.float32)
        return found

    def searched(self, limits: list[int]) -> dict[int, dict[str, int]]:
        """Limit -> matrix -> option: by AutoScheme's losses and dynamic programming, with our bytes as costs.

        Its own costs have scales of 16 bits, so that its average bits couldn't be held against our bytes.
        """
        from auto_round import AutoScheme
        from auto_round.auto_scheme.delta_loss import choose_bits_per_layer_with_path
        from auto_round.auto_scheme.gen_auto_scheme import GenScheme

        GenScheme(
            # the whole model at once, so that gradients are those of the model's own loss
            AutoScheme(
                avg_bits=float(max(option["bits"] for option in self.options)),
                options=[_scheme(option) for option in self.options],
                low_gpu_mem_usage=False,
                **self.calibration,
            ),
            self.model(),
            self.names,
            {},
            dataset=PIECES,
            device_map="cpu",
            tokenizer=self.tokenizer,
            enable_torch_compile=False,
        ).get_layer_config()
        losses: dict[int, dict[str, tuple[float, float]]] = {}
        for path in Path(os.environ[_SCORES]).glob("scheme_*.json"):
            scores = json.loads(path.read_text())
            losses[scores["scheme_index"]] = scores["layer_scores"]
        costs = {
            name: [(i, size, losses[i][name][1], [name]) for i, size in enumerate(self.bytes[name])]
            for name in self.names
        }
        paths = {limit: choose_bits_per_layer_with_path(costs, limit)[1] for limit in limits}
        return {limit: {name: option for (name,), option in path} for limit, path in paths.items()}

    def tuned(self, chosen: dict[str, int], output: Path) -> None:
        """Writes every matrix as AutoRound rounds it, float32."""
        from auto_round import AutoRound

        rounding = AutoRound(
            self.model(),
            self.tokenizer,
            scheme=_scheme(self.options[next(iter(chosen.values()))]),
            layer_config={name: self.options[index] for name, index in chosen.items()},
            iters=self.iterations,
            scale_dtype="fp32",
            amp=False,
            device_map="cpu",
            enable_torch_compile=False,
            **self.calibration,
        )
        model, layers = rounding.quantize()
        if self._indices({name: layers[name] for name in chosen}) != chosen:
            raise ValueError("AutoRound tuned other formats than it was asked for")
        weights = {name: model.get_submodule(name).weight for name in chosen}
        save_file({name: w.detach().float().contiguous() for name, w in weights.items()}, output)

    def _indices(self, layers: dict[str, dict[str, Any]]) -> dict[str, int]:
        return {
            name: self.options.index({key: layers[name][key] for key in ("bits", "group_size", "sym")})
            for name in layers
        }


def _scheme(option: dict[str, Any]) -> Any:
    from auto_round.schemes import QuantizationScheme

    return QuantizationScheme(**option, data_type="int", act_bits=16, act_data_type="float", act_dynamic=True)


def answer(request: dict[str, Any]) -> list[dict[str, int]]:
    """What the request asks for."""
    rounding = Rounding(request)
    jobs = request["jobs"]
    limits = [job["limit_bytes"] for job in jobs if "limit_bytes" in job]
    searched = rounding.searched(limits) if limits else {}
    found = []
    for job in jobs:
        uniform = dict.fromkeys(rounding.names, job.get("option"))
        chosen = searched[job["limit_bytes"]] if "limit_bytes" in job else uniform
        rounding.tuned(chosen, Path(job["output"]))
        found.append(chosen)
    return found


def main() -> None:
    """Reads the request, writes the answer."""
    with TemporaryDirectory() as scratch:
        # scores are kept by the names of model and dataset: those of another model must not be found
        os.environ[_SCORES] = scratch
        os.environ["AR_WORK_SPACE"] = str(Path(scratch) / "work")
        os.environ["AR_DISABLE_DATASET_SUBPROCESS"] = "1"
        text = json.dumps(answer(json.loads(sys.stdin.read())))
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
