"""torch on a GPU: transformers in bf16, eager and compiled, and bitsandbytes' 8-bit and nf4 weights.

Compiled: a key/value buffer of fixed size, and torch.compile's reduce-overhead, which captures each decode step
in a CUDA graph; prompts are read eagerly, since each length would be compiled anew. Logits are copied to the
host after each step, which waits for the device: the same that is timed of an artifact.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.bench.protocol import Ids
from edgeicl.bench.rivals.rival import Engine, Logits, Rival, RivalEnvironment, SteppedEngine
from edgeicl.bench.rivals.transformers_eager import TRANSFORMERS

BITSANDBYTES = RivalEnvironment(
    "bitsandbytes",
    ("bitsandbytes>=0.45", "torch", "transformers>=4.57,<6", "accelerate", "safetensors"),
    "its kernels follow torch's build of CUDA",
)


def _rival(
    name: str,
    description: str,
    environment: RivalEnvironment,
    tolerance: float,
    weights: str,
    *,
    compiled: bool,
) -> Rival:
    settings = {"weights": weights, "compiled": compiled, "device": "cuda"}
    return Rival(
        name, description, environment, __name__, tolerance, settings, provider="cuda", fixes_context=compiled
    )


RIVALS = (
    _rival("cuda-eager-bf16", "transformers on CUDA, eager, bf16", TRANSFORMERS, 0.05, "bf16", compiled=False),
    _rival(
        "cuda-compiled-bf16",
        "transformers on CUDA, torch.compile (reduce-overhead, static cache), bf16",
        TRANSFORMERS,
        0.05,
        "bf16",
        compiled=True,
    ),
    _rival(
        "cuda-bitsandbytes-8bit",
        "transformers on CUDA, bitsandbytes LLM.int8()",
        BITSANDBYTES,
        0.15,
        "8bit",
        compiled=False,
    ),
    _rival(
        "cuda-bitsandbytes-nf4",
        "transformers on CUDA, bitsandbytes nf4, computing in bf16",
        BITSANDBYTES,
        0.45,
        "nf4",
        compiled=False,
    ),
)
IMPORTS = ("torch", "transformers")


def build(checkpoint: Path, folder: Path, settings: Mapping[str, Any], context_tokens: int) -> None:
    """The checkpoint with its weights as `settings` say: bf16, 8bit or nf4, which are rounded on the GPU."""
    require_device(settings["device"])
    _model(checkpoint, settings, quantize=True).save_pretrained(folder)


def load(folder: Path, settings: Mapping[str, Any], threads: int, context_tokens: int) -> Engine:
    """The model in `folder`, on the device."""
    require_device(settings["device"])
    model = _model(folder, settings, quantize=False)
    if settings["compiled"]:
        return CompiledDecoder(model, settings["device"], threads, context_tokens)
    return DeviceDecoder(model, settings["device"], threads)


def require_device(device: str) -> None:
    """Ends the program with the reason where torch can't use the device."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(
            f"torch {torch.__version__} finds no CUDA device; expected an NVIDIA GPU and its driver"
        )


def _model(folder: Path, settings: Mapping[str, Any], *, quantize: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    more: dict[str, Any] = {}
    if quantize and settings["weights"] == "8bit":
        more["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    if quantize and settings["weights"] == "nf4":
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    if settings["weights"] != "bf16":
        more["device_map"] = {"": settings["device"]}
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16, **more).eval()
    return model if "device_map" in more else model.to(settings["device"])


class DeviceDecoder(SteppedEngine):
    """A transformers model on a device, with its own growing cache."""

    def __init__(self, model: Any, device: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.threads: int = torch.get_num_threads()
        self._torch, self._model, self._device = torch, model, device
        self._cache: Any = None

    def reset(self) -> None:
        self._cache = None

    def read(self, ids: Ids) -> Logits:
        with self._torch.inference_mode():
            found = self._model(
                input_ids=self._torch.from_numpy(np.ascontiguousarray(ids)).to(self._device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = found.past_key_values
        return _here(found.logits)


class CompiledDecoder(SteppedEngine):
    """A transformers model whose decode step is compiled, over a buffer of `context_tokens`."""

    def __init__(self, model: Any, device: str, threads: int, context_tokens: int) -> None:
        import torch
        from transformers import StaticCache

        torch.set_num_threads(threads)
        self.threads: int = torch.get_num_threads()
        self._torch, self._model, self._device = torch, model, device
        self._cache = StaticCache(config=model.config, max_cache_len=context_tokens)
        self._step = torch.compile(self._forward, mode="reduce-overhead", fullgraph=True, dynamic=False)
        self._length = 0
        # Addresses of a captured graph's inputs stay.
        self._token = torch.zeros((1, 1), dtype=torch.long, device=device)
        self._position = torch.zeros((1, 1), dtype=torch.long, device=device)

    def reset(self) -> None:
        self._cache.reset()
        self._length = 0

    def read(self, ids: Ids) -> Logits:
        count = ids.shape[1]
        # no_grad: tensors of inference_mode can't be written to by what is compiled.
        with self._torch.no_grad():
            if count > 1:
                tokens = self._torch.from_numpy(np.ascontiguousarray(ids)).to(self._device)
                positions = self._torch.arange(self._length, self._length + count, device=self._device)[None]
                logits = self._forward(tokens, positions)
            else:
                self._token.fill_(int(ids[0, 0]))
                self._position.fill_(self._length)
                logits = self._step(self._token, self._position)
        self._length += count
        return _here(logits)

    def _forward(self, tokens: Any, positions: Any) -> Any:
        return self._model(
            input_ids=tokens,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits


def _here(logits: Any) -> Logits:
    """Logits [1, V] of the last token, on the host; waits for the device."""
    last: Logits = logits[:, -1].float().cpu().numpy()
    return last
