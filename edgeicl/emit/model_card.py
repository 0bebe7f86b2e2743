"""The artifact's README.md: what it is, what it was made from, what was measured, how to run it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from edgeicl.emit.generation_checks import GENAI_READS_TEXT
from edgeicl.emit.usage import usage
from edgeicl.models.model_folder import MODEL_CARD, is_on_hub
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.manifest import (
    COMPRESSOR,
    GENAI_FILE,
    PREFIX_FILE,
    TASK_FILE,
    WEIGHTS_FILE,
    Manifest,
    TaskFile,
)
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)^---\s*$", re.MULTILINE | re.DOTALL)
_LICENSE_KEYS = ("license", "license_name", "license_link")


def model_card(
    folder: Path, manifest: Manifest, *, recipe: Recipe, target: Target, source: Path, base_folder: Path
) -> str:
    """Markdown with the hub's front matter, from the manifest of an artifact.

    Args:
        folder: The artifact's, with its task.json.
        source: Folder of the model that the student was made from, with its own card.
        base_folder: Where the recipe's relative paths start.
    """
    base = recipe.distill.student.model
    on_hub = is_on_hub(base, base_folder=base_folder)
    sections = [
        _front_matter(
            base if on_hub else None, base_license(base, source), generates=manifest.logit_tokens is None
        ),
        f"# {manifest.name} for {manifest.target}\n\nMade by edgeicl "
        f"{manifest.versions.get('edgeicl', '(version unknown)')} from `{base}`"
        + (f", taught by `{recipe.distill.teacher.model}`" if recipe.distill.teacher else "")
        + f" (method `{recipe.distill.method}`, seed {manifest.seed}), for: {target.description}",
        _task(recipe) + _before(manifest),
        _sizes(manifest),
        _quality(manifest),
        _speed(manifest),
        _usage(folder, manifest, target),
        _optimum(manifest),
        _deviations(manifest),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def base_license(base: str, source: Path) -> dict[str, str]:
    """The licence of the student's weights, as front matter: that of its own model card where there is one."""
    if base.startswith("builtin:"):
        return {"license": "mit"}
    card = source / MODEL_CARD
    named = _named_license(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else {}
    if base.startswith("facebook/opt-"):
        return {"license": "other", "license_name": "opt-license"} | named
    return named or {"license": "unknown"}


def _named_license(card: str) -> dict[str, str]:
    matter = _FRONT_MATTER.search(card)
    try:
        values = YAML(typ="safe").load(matter[1]) if matter else None
    except (YAMLError, ValueError):
        return {}
    found = {key: values[key] for key in _LICENSE_KEYS if values.get(key)} if isinstance(values, dict) else {}
    # old cards list their licences
    return {key: str(value[0] if isinstance(value, list) else value) for key, value in found.items()}


def _front_matter(base_on_hub: str | None, license_: dict[str, str], *, generates: bool) -> str:
    lines = [f"{key}: {_scalar(value)}" for key, value in license_.items()]
    if base_on_hub:
        lines += [f"base_model: {base_on_hub}", "base_model_relation: quantized"]
    task, runs_in = "text-generation", "onnxruntime-genai"
    if not generates:
        task, runs_in = "text-classification", "onnxruntime"
    lines += ["library_name: onnx", f"pipeline_tag: {task}", f"tags: [onnx, {runs_in}, edgeicl]"]
    return "\n".join(["---", *lines, "---"])


def _scalar(value: str) -> str:
    """A text as YAML: plain where that is safe, else in quotes."""
    return value if re.fullmatch(r"[\w./-]+", value) else json.dumps(value)


def _task(recipe: Recipe) -> str:
    words = ", ".join(f"`{word}` ({label})" for label, word in recipe.task.verbalizers.items())
    return (
        f"## Task\n\nThe model reads `{recipe.task.pattern}` and answers with one of: {words}. "
        "`task.json` holds the pattern and the answers' token ids."
    )


def _before(manifest: Manifest) -> str:
    use = manifest.prefix
    if use is None:
        return ""
    what = {"tokens": "demonstrations", "vectors": "vectors that stand for demonstrations"}[use.kind]
    sets = f"{len(use.tokens)} sets of " * (len(use.tokens) > 1)
    return (
        f"\n\nBefore every query stand {what}, {sets}{', '.join(map(str, use.tokens))} positions: their keys "
        f"and values are in `{PREFIX_FILE}`, computed once, so that a query costs its own tokens."
        + " The majority of the sets decides."
        * (len(use.tokens) > 1)
        + f" What made the vectors is in `{COMPRESSOR}/`: `edgeicl prefix` makes others with it, an app needs "
        "none of it." * (use.kind == "vectors")
    )


def _sizes(manifest: Manifest) -> str:
    total = sum(entry.bytes for entry in manifest.ledger)
    weights, prefix = (
        sum(entry.bytes for entry in manifest.ledger if entry.file == file)
        for file in (WEIGHTS_FILE, PREFIX_FILE)
    )
    counts: dict[str, int] = {}
    for group in manifest.plan.groups:
        counts[str(group.format)] = counts.get(str(group.format), 0) + 1
    rows = [f"| {name} | {count} |" for name, count in sorted(counts.items())]
    return "\n".join(
        [
            f"## Size\n\n{total:,} bytes ({format_byte_size(total)}) in all, {weights:,} of them weights"
            + f" and {prefix:,} what stands before a query" * (prefix > 0)
            + ".\n",
            "| format | weight groups |",
            "|---|---:|",
            *rows,
            f"\nWeights: {manifest.rounding}. While it runs: {manifest.plan.numbers}.",
        ]
    )


def _quality(manifest: Manifest) -> str:
    lines = ["## Checks\n"]
    for row in manifest.accuracy:
        limit = "" if row.limit_points is None else f"; may lose {row.limit_points:g} points"
        lines.append(
            f"- accuracy, {row.data.replace('_', '-')}: {row.artifact:.1%}, the fp32 student {row.student:.1%} "
            f"({row.examples} examples{limit})"
        )
    lines += [
        f"- parity, {check.name}: logits differ by at most {check.max_abs_difference:.2g} "
        f"(allowed {check.tolerance:.2g}, largest logit {check.reference_scale:.3g})"
        for check in manifest.parity
    ]
    return "\n".join(lines)


def _speed(manifest: Manifest) -> str:
    bench = manifest.bench
    if bench is None:
        return ""
    speed = bench.decode_tokens_per_second
    return (
        f"## Speed\n\n{bench.fidelity} on {bench.conditions.processor}, {bench.conditions.threads} threads, "
        f"{bench.conditions.runtime} {bench.conditions.runtime_version}: first token after "
        f"{bench.first_token_ms:.3g} ms ({bench.conditions.prompt_tokens} tokens of prompt)"
        + ("" if speed is None else f", then {speed:.0f} tokens/s")
        + f"; peak memory {format_byte_size(bench.peak_rss_bytes)}."
        + "".join(f" {note[0].upper()}{note[1:]}." for note in bench.notes)
    )


def _usage(folder: Path, manifest: Manifest, target: Target) -> str:
    task = TaskFile.model_validate_json((folder / TASK_FILE).read_bytes())
    reads_text = all(deviation.asked != GENAI_READS_TEXT for deviation in manifest.deviations)
    if manifest.engine == "fused":
        return usage(task, target.provider, genai_reads_text=reads_text)
    decoder = json.loads((folder / GENAI_FILE).read_text())["model"]["decoder"]
    return usage(task, inputs=decoder["inputs"], last_only=False, genai_reads_text=reads_text)


def _optimum(manifest: Manifest) -> str:
    if not manifest.optimum_agrees:
        return ""
    fused = (
        " One text at a time: `generate` pads a batch on the left, and this graph wants padding on the right. "
        "Its warning of a missing `position_ids` changes nothing: positions come from the mask."
    )
    return (
        "With Optimum, `ORTModelForCausalLM.from_pretrained(folder)` and its `generate` made the same greedy "
        "tokens." + fused * (manifest.engine == "fused")
    )


def _deviations(manifest: Manifest) -> str:
    if not manifest.deviations:
        return ""
    lines = [f"- {d.where}: {d.what}: asked {d.asked}, got {d.got}: {d.why}" for d in manifest.deviations]
    return "\n".join(["## Deviations\n", *lines])
