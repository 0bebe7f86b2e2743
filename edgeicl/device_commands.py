"""Devices themselves: what they take for the parts of a decoder. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeicl.arguments import (
    CoresOption,
    InstallOption,
    JsonOption,
    OnOption,
    TargetOption,
    ThreadsOption,
    file_to_write,
    limits_given,
    plain,
    print_json,
)
from edgeicl.errors import Problem, SpecError

RUNTIME = "Runtime"

device_app = typer.Typer()


@device_app.command("probe", rich_help_panel=RUNTIME)
def probe_command(
    out: Annotated[Path, typer.Option(help="Target file to write.", show_default=False)],
    given: Annotated[
        str, typer.Option("--from", metavar="TARGET", help="Target file or name to start from.")
    ] = "host-cpu",
    on: OnOption = "local",
    cores: CoresOption = None,
    install: InstallOption = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a device in one to three minutes, and write a target whose predictions rest on that."""
    from edgeicl.bench.devices.address import device_at
    from edgeicl.cache_lock import in_use
    from edgeicl.probe import probe
    from edgeicl.specs.catalog import load_target
    from edgeicl.specs.loading import dump_yaml
    from edgeicl.store import cache_root

    device = device_at(on, limits_given(cores, None), install=install)
    file_to_write("--out", out, command="probe", new=True)
    with in_use(cache_root()):
        measured = probe(load_target(given), threads=threads, device=device)
    measured = measured.model_copy(update={"name": out.stem})
    out.write_text(dump_yaml(measured))
    told = f"{out}: {measured.calibration.source if measured.calibration else ''}"
    print_json(plain(measured)) if as_json else typer.echo(told)


@device_app.command("predict", rich_help_panel=RUNTIME)
def predict_command(
    artifact: Annotated[
        Path | None,
        typer.Argument(metavar="ARTIFACT", help="Folder made by `edgeicl compile`.", show_default=False),
    ] = None,
    target: TargetOption = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the prompt; the target's unless given.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Cached positions of a decoded token; the context unless given.")
    ] = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="Show how far predictions are off on devices that were held out.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Predict speed and memory on phones that are not at hand, with the error of the method.

    Without --target, on every shipped target that something is known of.
    """
    from edgeicl.bench.prediction.holdout import validation
    from edgeicl.bench.prediction.predict import known_targets, predict
    from edgeicl.report.prediction_text import predictions_text, validation_text
    from edgeicl.specs.catalog import load_target

    if validate == (artifact is not None):
        found = "both an artifact and --validate" if validate else "neither an artifact nor --validate"
        raise SpecError("predict", [Problem("ARTIFACT", found, "expected one of them")])
    of_artifacts = {"--target": target, "--prompt-tokens": prompt_tokens, "--depth": depth}
    given = [name for name, value in of_artifacts.items() if value is not None]
    if validate and given:
        found = "found with --validate"
        raise SpecError("predict", [Problem(name, found, "expected without it") for name in given])
    if artifact is None:
        checked = validation()
        print_json(plain(checked)) if as_json else typer.echo(validation_text(checked))
        return
    targets = [load_target(name) for name in target] if target else known_targets()
    predictions = [predict(artifact, one, prompt_tokens=prompt_tokens, depth_tokens=depth) for one in targets]
    print_json([plain(one) for one in predictions]) if as_json else typer.echo(predictions_text(predictions))


@device_app.command(rich_help_panel=RUNTIME)
def doctor(
    arm: Annotated[
        bool,
        typer.Option(
            "--arm", help="Bring what emulated ARM cores need into the cache: qemu 10, and an aarch64 system."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what this installation has and lacks. Exit code 1 if a build would lack something."""
    from edgeicl.bench.devices.qemu_program import bring_qemu
    from edgeicl.bench.devices.sysroot import build_sysroot
    from edgeicl.cache_lock import in_use
    from edgeicl.installation import arm_findings, findings
    from edgeicl.report.tables import aligned
    from edgeicl.store import cache_root

    if arm:
        with in_use(cache_root()):
            bring_qemu()
            build_sysroot()
    found = arm_findings() if arm else findings()
    if as_json:
        print_json([plain(entry) for entry in found])
    else:
        rows = [(entry.name, entry.state, entry.found, entry.next_step) for entry in found]
        typer.echo(aligned(("what", "state", "found", "what to do, or what fails without"), rows))
    if any(entry.state == "missing" for entry in found):
        raise typer.Exit(1)
