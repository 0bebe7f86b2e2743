from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import OPTForCausalLM

from edgeicl.distill import training_options
from edgeicl.distill.adapter import adapted
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.stage import distill as run_recipe
from edgeicl.distill.training_options import activations_recomputed, check_options
from edgeicl.errors import EdgeiclError
from edgeicl.specs.recipe import Recipe
from edgeicl.store import Store
from tests.killed_training import killed_before
from tests.unit.distill.test_distill_stage import changed
from tests.unit.distill.test_trainer import distill, settings, weights

CPU = torch.device("cpu")


def trained(opt: Callable[..., OPTForCausalLM], folder: Path | None = None, **changes: object) -> LabelReader:
    reader = LabelReader(opt(seed=8))
    distill(reader, folder, **changes)
    return reader


def same(one: LabelReader, other: LabelReader) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in weights(one).items())


def test_recomputed_activations_change_no_bit(opt: Callable[..., OPTForCausalLM]) -> None:
    assert same(trained(opt), trained(opt, gradient_checkpointing=True))


def test_recomputing_keeps_less_and_leaves_the_model_as_it_was(opt: Callable[..., OPTForCausalLM]) -> None:
    model = opt(seed=8, layers=4)

    def kept_bytes(*, wanted: bool) -> int:
        """Of all that the graph of one forward pass holds for the backward pass."""
        total = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        with activations_recomputed(model, wanted=wanted):
            hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
            with hooks:
                model(torch.arange(5, 105)[None], use_cache=False).logits.sum()
        return total

    assert kept_bytes(wanted=True) < 0.5 * kept_bytes(wanted=False)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_module_without_such_layers_is_refused() -> None:
    with (
        pytest.raises(EdgeiclError, match=r"gradient_checkpointing: Linear has no layers that support it"),
        activations_recomputed(nn.Linear(2, 2), wanted=True),
    ):
        pass


def test_bf16_computes_in_bf16_while_it_trains_and_not_after(opt: Callable[..., OPTForCausalLM]) -> None:
    formats = []
    reader = LabelReader(opt(seed=8))
    reader.model.model.decoder.layers[0].fc1.register_forward_hook(lambda *call: formats.append(call[2].dtype))
    distill(reader, mixed_precision="bf16")
    assert set(formats) == {torch.bfloat16}
    assert {parameter.dtype for parameter in reader.parameters()} == {torch.float32}
    reader.model(torch.tensor([[5, 6]]))
    assert formats[-1] == torch.float32
    full = trained(opt)
    assert not same(reader, full)
    difference = max((value - full.state_dict()[name]).abs().max() for name, value in weights(reader).items())
    assert difference < 0.05


@pytest.mark.parametrize(
    ("adapter", "changes"),
    [
        ("lora", {}),
        ("bitfit", {}),
        ("none", {"gradient_checkpointing": True}),
        ("none", {"mixed_precision": "bf16"}),
        ("none", {"over": "vocabulary"}),
        ("lora", {"gradient_checkpointing": True, "mixed_precision": "bf16", "ce": 0.5}),
    ],
)
def test_killed_with_any_option_a_run_goes_on_to_the_same_bits(
    opt: Callable[..., OPTForCausalLM],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    adapter: str,
    changes: dict[str, object],
) -> None:
    def train(folder: Path | None) -> tuple[LabelReader, list[float]]:
        reader = LabelReader(opt(seed=8))
        with adapted(reader.model, adapter, rank=4, alpha=8, seed=0):  # type: ignore[arg-type]
            return reader, distill(reader, folder, **changes)

    if changes.get("over"):
        monkeypatch.setattr("tests.unit.distill.test_trainer.TARGETS", vocabulary_targets(opt))
    whole, losses = train(None)
    with killed_before(5):
        train(tmp_path)
    resumed, again = train(tmp_path)
    assert again == losses
    assert same(whole, resumed)


def vocabulary_targets(opt: Callable[..., OPTForCausalLM]) -> np.ndarray:
    """As they are stored: float16."""
    from tests.unit.distill.test_trainer import trainer_targets

    return trainer_targets(LabelReader(opt(seed=5)))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"optimizer": "adamw_8bit"}, r"adamw_8bit needs CUDA .*found the device cpu\nnext: .*adamw, or"),
        ({"mixed_precision": "fp16"}, r"fp16 needs CUDA; found the device cpu\nnext: .*bf16 or no"),
        ({"tracker": "comet_ml"}, r"tracker comet_ml is not installed; .*\nnext: pip install comet-ml"),
    ],
)
def test_what_this_machine_can_not_do_is_refused_before_any_work(
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    opt: Callable[..., OPTForCausalLM],
    asked: dict[str, str],
    told: str,
) -> None:
    monkeypatch.setattr(training_options, "get_available_trackers", lambda: ["tensorboard"])
    training = recipe.distill.training.model_dump() | asked
    with pytest.raises(EdgeiclError, match=told):
        run_recipe(changed(recipe, training=training), store=Store(tmp_path / "cache"), base_folder=tmp_path)
    assert not (tmp_path / "cache").exists()
    with pytest.raises(EdgeiclError, match=told):
        distill(LabelReader(opt(seed=8)), **asked)
    options = {"optimizer": "adamw", "mixed_precision": "no", "tracker": "none"} | asked
    if asked.get("tracker"):
        options["tracker"] = "tensorboard"
        check_options(**options, device=CPU)  # type: ignore[arg-type]
    elif asked.get("optimizer"):
        check_options(**options, device=torch.device("cuda"))  # type: ignore[arg-type]


def test_tensorboard_gets_loss_and_learning_rate_of_every_step_and_nothing_else(
    opt: Callable[..., OPTForCausalLM], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses = distill(LabelReader(opt(seed=8)), tracker="tensorboard", log_folder=str(tmp_path / "logs"))
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["distilling"]
    events = EventAccumulator(str(tmp_path / "logs/distilling"))
    events.Reload()
    tags = events.Tags()
    assert set(tags.pop("scalars")) == {"loss", "learning_rate"}
    assert not any(tags.values())
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses, rel=1e-6)
    rates = [event.value for event in events.Scalars("learning_rate")]
    assert rates[:3] == pytest.approx([1.5e-3, 3e-3, 3e-3], rel=1e-6)
    assert [event.step for event in events.Scalars("loss")] == list(range(8))


def test_where_a_training_is_logged_does_not_make_it_another(recipe: Recipe) -> None:
    training = recipe.distill.training
    logged = training.model_copy(
        update={"tracker": "tensorboard", "log_folder": "x", "checkpoint_every_steps": 9}
    )
    assert logged.deciding() == training.deciding()
    assert training.model_copy(update={"optimizer": "adamw_8bit"}).deciding() != training.deciding()


def test_no_tracker_is_asked_for_none(opt: Callable[..., OPTForCausalLM], tmp_path: Path) -> None:
    distill(LabelReader(opt(seed=8)), log_folder=str(tmp_path / "logs"))
    assert not (tmp_path / "logs").exists()
    assert settings().tracker == "none"
    assert "wandb" not in sys.modules
