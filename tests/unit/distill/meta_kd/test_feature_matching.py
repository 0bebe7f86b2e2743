from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import OPTForCausalLM

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.meta_kd.feature_matching import (
    Features,
    MatchingTerms,
    attention_loss,
    check_heads,
    group_heads,
    hidden_loss,
    layer_map,
    matching_loss,
    train_to_match,
)
from edgeicl.distill.meta_kd.states import (
    all_states,
    embed,
    mean_state,
    prompt_mask,
    prompt_pass,
    with_attention,
)
from edgeicl.distill.trainer import Loss, TrainingSettings
from edgeicl.errors import DataError

ROWS = [[0, 9, 8, 7, 6], [0, 5, 4], [0, 3, 3, 2], [0, 11, 12]]
TERMS = MatchingTerms(1.0, 1.0, 0.5)
SETTINGS = TrainingSettings(learning_rate=1e-2, epochs=15, batch_size=2, checkpoint_every_steps=5)
Opt = Callable[..., OPTForCausalLM]


def test_layer_map() -> None:
    assert layer_map(6, 3) == [0, 2, 4, 6]
    assert layer_map(12, 4) == [0, 3, 6, 9, 12]
    assert layer_map(2, 2) == [0, 1, 2]
    assert layer_map(5, 2) == [0, 2, 5]  # no multiple: still uniform, still to the last
    with pytest.raises(DataError, match=r"the student has 4 layers, its teacher 3.*\n?.*"):
        layer_map(3, 4)


def test_heads_are_grouped_or_refused() -> None:
    attention = torch.arange(4.0)[None, :, None, None].expand(1, 4, 2, 2)
    assert group_heads(attention, 2)[0, :, 0, 0].tolist() == [0.5, 2.5]
    assert torch.equal(group_heads(attention, 4), attention)
    check_heads(8, 4)
    with pytest.raises(DataError, match="the teacher has 8 heads, the student 3"):
        check_heads(8, 3)


def test_losses_on_paper() -> None:
    mask = torch.tensor([[True, True, False]])
    # Differences 1 and 3 in one of two widths: (1/2 + 9/2) / 2 tokens = 2.5; the third token is padding.
    student, teacher = torch.zeros(1, 3, 2), torch.tensor([[[1.0, 0.0], [0.0, 3.0], [50.0, 50.0]]])
    assert hidden_loss(student, teacher, mask).item() == pytest.approx(2.5)
    # Of 2 tokens 3 pairs may see each other; differences 0, 0.5, 0.5: (0 + 0.25 + 0.25) / 3.
    ours = torch.tensor([[[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]])
    theirs = torch.tensor([[[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]])
    assert attention_loss(ours, theirs, mask).item() == pytest.approx(0.5 / 3)


def test_matching_against_a_second_implementation() -> None:
    torch.manual_seed(0)
    lengths = [4, 2, 3]
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    hidden = [[torch.randn(3, 4, 5) for _ in range(3)] for _ in range(2)]
    attention = [[torch.rand(3, 2, 4, 4).tril() for _ in range(2)] for _ in range(2)]
    domain = [torch.randn(3, 5) for _ in range(2)]
    found = matching_loss(
        Features(hidden[0], attention[0], domain[0]),
        Features(hidden[1], attention[1], domain[1]),
        mask,
        MatchingTerms(2.0, 3.0, 0.5),
    )
    for row, length in enumerate(lengths):
        states = sum(
            float(np.mean((ours[row, :length].numpy() - theirs[row, :length].numpy()) ** 2))
            for ours, theirs in zip(*hidden, strict=True)
        )
        seen = [(query, key) for query in range(length) for key in range(query + 1)]
        attended = sum(
            float(
                np.mean([(ours[row, :, q, k] - theirs[row, :, q, k]).square().mean().item() for q, k in seen])
            )
            for ours, theirs in zip(*attention, strict=True)
        )
        features = float(np.mean((domain[0][row].numpy() - domain[1][row].numpy()) ** 2))
        expected = 2 * states + 3 * attended + 0.5 * features
        assert found[row].item() == pytest.approx(expected, rel=1e-5)


def test_prompts_alone_are_read(opt: Opt) -> None:
    """Padding changes nothing, and the mean leaves the leading token out."""
    reader = LabelReader(opt(seed=1))
    together = embed(reader, ROWS, pooling="mean", skip=1)
    alone = np.concatenate([embed(reader, [row], pooling="mean", skip=1) for row in ROWS])
    assert together == pytest.approx(alone, abs=1e-5)
    states = reader.model.base_model(torch.tensor([ROWS[0]])).last_hidden_state[0].detach().numpy()
    assert together[0] == pytest.approx(states[1:].mean(0), abs=1e-5)
    last = embed(reader, ROWS, pooling="last_token", skip=1)
    assert last[0] == pytest.approx(states[-1], abs=1e-5)
    mask = prompt_mask(prompt_pass(ROWS, reader.device), skip=1)
    assert mask.sum(1).tolist() == [len(row) - 1 for row in ROWS]
    assert mean_state(torch.ones(4, 5, 2), mask).tolist() == [[1.0, 1.0]] * 4


def trained(
    opt: Opt, weights: list[float], folder: Path | None = None, **changed: object
) -> tuple[LabelReader, list[float]]:
    student, teacher = (with_attention(LabelReader(opt(seed=seed, layers=seed))) for seed in (1, 2))
    arguments = {
        "rows": ROWS,
        "weights": np.array(weights, np.float32),
        "terms": TERMS,
        "domain_feature": torch.tanh,
        "skip": 1,
        "settings": SETTINGS,
        "seed": 0,
        "checkpoint_folder": folder,
    }
    losses = train_to_match(student, teacher, **arguments | changed)  # type: ignore[arg-type]
    return student, losses


def test_a_student_comes_to_follow_its_teacher(opt: Opt) -> None:
    student, losses = trained(opt, [1.0] * 4)
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    teacher = with_attention(LabelReader(opt(seed=2, layers=2)))
    one = prompt_pass(ROWS, student.device)
    target = all_states(teacher, one).attentions[1]
    after, before = (
        attention_loss(all_states(reader, one).attentions[0], target, prompt_mask(one)).mean().item()
        for reader in (student, with_attention(LabelReader(opt(seed=1, layers=1))))
    )
    assert after < 0.8 * before


@pytest.mark.parametrize("term", ["hidden", "attention", "domain_feature"])
def test_every_weight_has_a_gradient_whatever_is_matched(
    opt: Opt, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    """Several processes wait for that of each one, also of a head that the features don't reach."""
    from edgeicl.distill.meta_kd import feature_matching

    missing: list[str] = []

    def one_step(module: nn.Module, loss: Loss, **_: object) -> list[float]:
        loss(module, np.arange(4), 0).sum().backward()
        missing.extend(name for name, parameter in module.named_parameters() if parameter.grad is None)
        return []

    monkeypatch.setattr(feature_matching, "train", one_step)
    student, teacher = (with_attention(LabelReader(opt(seed=seed, layers=seed))) for seed in (1, 2))
    student.model.lm_head.weight = nn.Parameter(student.model.lm_head.weight.detach().clone())
    train_to_match(
        student,
        teacher,
        rows=ROWS,
        weights=np.ones(4, np.float32),
        terms=replace(MatchingTerms(0.0, 0.0, 0.0), **{term: 1.0}),
        domain_feature=torch.tanh if term == "domain_feature" else None,
        skip=1,
        settings=SETTINGS,
        seed=0,
    )
    assert missing == []


def test_examples_of_weight_0_teach_nothing(opt: Opt) -> None:
    start = opt(seed=1, layers=1).state_dict()
    student, losses = trained(opt, [0.0] * 4)
    assert losses == [0.0] * len(losses)
    found = student.model.state_dict()
    assert all(torch.equal(found[name], start[name]) for name in start)
    moved = trained(opt, [1.0] * 4)[0].model.state_dict()  # negative control
    assert any(not torch.equal(moved[name], start[name]) for name in start)


def test_a_killed_matching_goes_on_and_ends_the_same(
    opt: Opt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, losses = trained(opt, [1.0, 0.5, 2.0, 1.0])
    from edgeicl.distill.meta_kd import feature_matching

    real, calls = feature_matching.matching_loss, []

    def dies(*arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(feature_matching, "matching_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(opt, [1.0, 0.5, 2.0, 1.0], tmp_path)
    resumed, again = trained(opt, [1.0, 0.5, 2.0, 1.0], tmp_path)
    assert len(calls) == 13 + len(losses) - 10  # from the checkpoint after step 10
    assert again == losses
    expected, found = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
