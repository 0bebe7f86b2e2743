"""What the quantize stage works on, taken from recipe, target and student before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeicl.errors import DataError, Problem, SpecError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.loading import load_tokenizer
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.size import attention_score_bytes, prefix_file_bytes, rounded_cache_bytes
from edgeicl.quantize.budget import (
    context_tokens,
    predicted_prompt,
    require_room,
    task_file_bytes,
    weight_budget,
)
from edgeicl.quantize.cache_choice import Choice, PlanSpaces
from edgeicl.quantize.calibration import calibration_sequences, calibration_text
from edgeicl.quantize.conflicts import require_any
from edgeicl.quantize.measured_importance import Student
from edgeicl.quantize.plan_file import read_plan
from edgeicl.quantize.plan_space import PlanSpace
from edgeicl.quantize.possible_plans import plan_space
from edgeicl.quantize.student_weights import read_weights
from edgeicl.quantize.whole_model import read_whole_model
from edgeicl.specs.document import read_document
from edgeicl.specs.local_path import local_path
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.prefix import read_prefix_source
from edgeicl.specs.quant_plan import CacheBits
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import file_sha256
from edgeicl.tasks.verbalizer import label_columns, verbalizer_tokens

TEXT_BLOCK_TOKENS = 128
_AS_BUILT = (
    "give the limits that the plan was made with (--target-set budget.first_token_ms=...), or correct it"
)

_NO_COSTS = (
    "prompts take another time with a cache of integers, which the calibration doesn't have (`edgeicl probe` "
    "measures it), and budget.first_token_ms limits it"
)


def sized(
    recipe: Recipe, target: Target, *, student: Path, prefix_tokens: Sequence[int], prefix_ids: bool
) -> tuple[PlanSpaces, tuple[Deviation, ...]]:
    """What plans there are for the model in `student`, whose weights aren't read, and what each takes.

    `prefix_tokens` are of each set that stands before a query; `prefix_ids`: whether token ids are stored too.

    Raises:
        DataError: as `_sized`; or a model that Optimum exports, for a target without fp32.
    """
    spaces: dict[CacheBits, PlanSpace] = {}
    deviations: tuple[Deviation, ...] = ()
    left_out = _measured_all(recipe) * anatomy_of(model_config(student)).exported
    target = able_target(target, student)
    widths = sorted(target.cache_bits, reverse=True)
    known = target.calibration is not None and target.calibration.knows_integer_caches
    if target.budget.first_token_ms is not None and len(widths) > 1 and 8 in widths and not known:
        widths.remove(8)
        left_out += (_slower_prompts(target, widths),)
    for bits in widths:
        spaces[bits], deviations = _sized(recipe, target, student, prefix_tokens, prefix_ids, cache_bits=bits)
    return spaces, (*deviations, *left_out)


def _measured_all(recipe: Recipe) -> tuple[Deviation, ...]:
    asked = recipe.quantize.measured_formats
    if asked == "all" or recipe.quantize.importance != "sensitivity":
        return ()
    why = "the student is run whole, by transformers: what its groups read and give is not seen"
    return (Deviation(what="quantize.measured_formats", where="recipe", asked=asked, got="all", why=why),)


def _slower_prompts(target: Target, widths: Sequence[CacheBits]) -> Deviation:
    return Deviation(
        what="cache_bits",
        where=f"target {target.name}",
        asked=", ".join(map(str, target.cache_bits)),
        got=", ".join(map(str, widths)),
        why=_NO_COSTS,
    )


def able_target(target: Target, student: Path) -> Target:
    """The target with what a graph of the student can do there: Optimum's, no integer products, all in fp32.

    Raises:
        DataError: a student that Optimum exports, for a target without fp32 or with a limit of a prompt's time.
    """
    if not anatomy_of(model_config(student)).exported:
        return target
    if target.budget.first_token_ms is not None:
        raise DataError(
            f"{student}: such a model is exported by Optimum, and its time of a prompt can't be predicted; "
            f"target {target.name} has budget.first_token_ms {target.budget.first_token_ms:g}",
            next_step="set budget.first_token_ms: null, or take a student that edgeicl lowers itself",
        )
    if target.activation_bits != 32 or 32 not in target.cache_bits:
        raise DataError(
            f"{student}: such a model is exported by Optimum, in fp32; target {target.name} has activation_bits"
            f" {target.activation_bits} and cache_bits {', '.join(map(str, target.cache_bits))}",
            next_step="take a target with 32 in both, or a student that edgeicl lowers itself",
        )
    formats = tuple(format_ for format_ in target.formats if not format_.by_row)
    return target.model_copy(update={"formats": formats, "cache_bits": (32,), "prompt_format": None})


def _sized(
    recipe: Recipe,
    target: Target,
    student: Path,
    prefix_tokens: Sequence[int],
    prefix_ids: bool,
    *,
    cache_bits: CacheBits,
) -> tuple[PlanSpace, tuple[Deviation, ...]]:
    """The same beside a cache of `cache_bits`.

    Raises:
        DataError: a model that is unsupported, or a group that none of the target's formats fits.
    """
    anatomy, task = anatomy_of(model_config(student)), recipe.task
    columns = head_tokens(recipe, student)
    if columns is not None:
        anatomy.require_tied(str(student))
    budget, clamped = weight_budget(
        target,
        anatomy,
        tokenizer_bytes=len(load_tokenizer(student).to_str().encode()),
        task_bytes=task_file_bytes(
            task.pattern, task.verbalizers, task.separator, label_rows=len(columns or ())
        ),
        prefix_bytes=prefix_file_bytes(
            anatomy.layers,
            anatomy.kv_width,
            prefix_tokens,
            bits=min(recipe.emit.prefix_bits, cache_bits),
            ids=prefix_ids,
        ),
        label_rows=len(columns or ()),
        cache_bits=cache_bits,
    )
    # Only sensitivity tells groups apart: the other methods rate whole blocks, whose groups share one format.
    by_block = recipe.quantize.importance != "sensitivity"
    prompt_tokens, shortened = predicted_prompt(target, anatomy.positions)
    in_halves = 16 in (cache_bits, target.activation_bits)
    # what stands before a query is in the cache: its prompt is no first one, and attention reads integers
    integers_alone = cache_bits == 8 and bool(prefix_tokens)
    apart = not in_halves and not integers_alone
    context = context_tokens(target, anatomy.positions)
    scores = attention_score_bytes(anatomy.heads, context)
    whole_attention = apart and target.provider == "cpu" and not anatomy.exported
    space = plan_space(
        anatomy,
        target.formats,
        budget,
        by_block=by_block,
        label_head=columns is not None,
        calibration=target.calibration,
        decode_limit_ms=target.budget.decode_ms,
        provider=target.provider,
        activation_bits=target.activation_bits,
        prompt_tokens=prompt_tokens,
        first_token_limit_ms=target.budget.first_token_ms,
        prompt_format=target.prompt_format if apart else None,
        copy_advised=apart and target.prompt_format is None,
        score_bytes=scores if whole_attention else None,
        cache_bits=cache_bits,
        rounded_bytes=rounded_cache_bytes(anatomy.kv_width, context),
    )
    return space, (*clamped, *shortened)


def head_tokens(recipe: Recipe, student: Path) -> tuple[int, ...] | None:
    """The tokens that the artifact has logits of; None: all of the vocabulary. DataError as `label_columns`."""
    if recipe.emit.head == "full":
        return None
    return label_columns(verbalizer_tokens(recipe.task.verbalizers, load_tokenizer(student)))


def calibrated(
    recipe: Recipe,
    target: Target,
    *,
    student: Path,
    student_digest: str,
    base_folder: Path,
    prefix: Path | None,
) -> Student:
    """The student with the sequences that its importance is measured on; no weight is read yet.

    Raises:
        DataError: data that can't be read, or a context that doesn't hold the prefix and a query behind it.
    """
    settings, task = recipe.quantize, recipe.task
    anatomy = anatomy_of(model_config(student))
    sets = read_prefix_source(prefix) if prefix else []
    sequences = calibration_sequences(
        task,
        student,
        examples=settings.calibration_examples,
        seed=recipe.seed,
        base_folder=base_folder,
        behind_prefix=bool(sets),
    )
    if sets:
        labels = verbalizer_tokens(task.verbalizers, load_tokenizer(student)).values()
        require_room(
            target,
            anatomy.positions,
            prefix_tokens=max(map(len, sets)),
            query_tokens=max(map(len, sequences)) + max(map(len, labels)),
        )
    if settings.calibration_text is not None:
        room = anatomy.positions - max(map(len, sets), default=0)
        sequences += calibration_text(
            settings.calibration_text,
            student,
            blocks=settings.calibration_text_blocks,
            block_tokens=min(TEXT_BLOCK_TOKENS, room),
            seed=recipe.seed,
            base_folder=base_folder,
        )
    return Student(
        load=lambda: read_whole_model(student, anatomy) if anatomy.exported else read_weights(student),
        groups=anatomy.groups,
        digest=student_digest,
        sequences=sequences,
        importance=settings.importance,
        top_k=settings.top_k,
        lsaq=settings.lsaq,
        solver=settings.solver,
        prefix=sets[0] if sets else None,
        prefix_digest=file_sha256(prefix) if prefix else None,
        head_tokens=head_tokens(recipe, student),
        measured_formats="all" if anatomy.exported else settings.measured_formats,
    )


def require_fit(recipe: Recipe, spaces: PlanSpaces, given: Choice | None) -> None:
    """BudgetError if the given plan breaks a limit; or, without one, every plan does."""
    if given is None:
        require_any(spaces.values())
    else:
        given.space.require(given.plan, what=f"the plan {recipe.quantize.plan}")


def given_plan(
    recipe: Recipe,
    target: Target,
    spaces: PlanSpaces,
    *,
    student: Path,
    student_digest: str | None,
    base_folder: Path,
) -> Choice | None:
    """The plan file of the recipe, if it has one, whether it fits or not.

    Raises:
        SpecError: a plan file that doesn't suit the model or the target.
    """
    if recipe.quantize.plan is None:
        return None
    target = able_target(target, student)
    path = local_path(recipe.quantize.plan, base_folder)
    groups = anatomy_of(model_config(student)).groups
    asked = read_plan(
        path,
        groups=groups,
        formats=target.formats,
        model_digest=student_digest,
        cache_bits=tuple(spaces),
        activation_bits=target.activation_bits,
        cache_ruled_out="" if set(target.cache_bits) <= set(spaces) else f"not 8: {_NO_COSTS}",
    )
    plan = {group.name: asked.formats()[group.name] for group in groups}
    space = spaces[asked.cache_bits].reading_prompts(asked.prompt_format, asked.prompt_attention)
    if space is not None:
        return Choice(asked.cache_bits, plan, space)
    key, found, expected = (
        "prompt_attention",
        "found whole",
        "expected tiled; whole is for graphs of edgeicl's own on a CPU, without fp16, where the calibration "
        "says it is faster, with budget.first_token_ms or a head of the labels alone; beside a cache of "
        "integers with prompt_format or such a head, and not behind a prefix",
    )
    if spaces[asked.cache_bits].reading_prompts(asked.prompt_format, "tiled") is None:
        key, found, expected = (
            "prompt_format",
            f"found {asked.prompt_format}",
            "expected null, or prompt_format and budget.first_token_ms in the target, and no prefix that is "
            "kept as integers",
        )
    line = read_document(path, kind="plan").line_of((key,))
    raise SpecError(str(path), [Problem(key, found, expected, line)], next_step=_AS_BUILT)
