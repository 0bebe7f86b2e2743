"""The command line: exit codes, stdout for results only, the same by name and by module."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeicl import cli
from edgeicl.errors import BudgetError, EdgeiclError
from tests.unit.specs.test_loading import GOOD
from tests.unit.test_pipeline import TARGET


def run(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m edgeicl` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edgeicl", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
    )


def exit_code(*arguments: str) -> int:
    """Of the same command within this process."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(TARGET.format(name="a"))
    path = tmp_path / "r.yaml"
    path.write_text(GOOD.replace("tiny-cpu", "a.yaml"))
    return path


def test_five_mistakes_come_with_their_lines_on_stderr_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "five.yaml"
    path.write_text(
        GOOD.replace("count: 16", "cuont: 16")
        .replace("kl: 1.0", "kl: high")
        .replace("name: good", "nmae: good")
        .replace('{model: "builtin:nli-teacher"}', '{model: 5, load_in: "3bit"}')
    )
    done = run("compile", str(path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert f"{path}: 6 problems" in done.stderr  # the misspelt name is also missing
    for line, key in ((2, "nmae"), (9, "model"), (9, "load_in"), (12, "cuont"), (14, "kl"), (1, "name")):
        assert any(
            text.split()[:2] == ["line", str(line)] and text.split()[2].endswith(key)
            for text in done.stderr.splitlines()
        ), (line, key)


def test_help_is_grouped_and_version_is_printed() -> None:
    done = run("--help")
    assert done.returncode == 0
    for panel in ("Recipe", "Compile", "Runtime"):
        assert f"─ {panel} ─" in done.stdout
    assert run("--version").stdout.startswith("edgeicl ")


def test_usage_errors_are_2() -> None:
    assert exit_code("compile") == 2
    assert exit_code("frobnicate") == 2
    assert exit_code("schema", "recip") == 2


def test_check_says_so_when_nothing_is_wrong(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("check", str(recipe)) == 0
    assert capsys.readouterr().out == f"{recipe}: nothing wrong; targets: a\n"
    assert exit_code("check", str(recipe), "--set", "distill.demonstrations.count=3", "--show") == 0
    assert "count: 3" in capsys.readouterr().out
    assert exit_code("check", str(recipe), "--target-set", "threads=0") == 2
    assert "command line  threads" in capsys.readouterr().err


def test_json_is_all_that_stdout_holds(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["schema", "recipe"],
        ["targets", "--json"],
        ["inspect", str(recipe), "--json"],
        ["check", str(recipe), "--json"],
        ["cache", "list", "--json"],
    ):
        assert exit_code(*arguments) == 0
        assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_problems_are_told_as_json_too(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("check", str(recipe), "--set", "seed=x", "--json") == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "problems": [
            {
                "file": str(recipe),
                "key": "seed",
                "found": "'x'",
                "expected": "expected a whole number",
                "line": None,
            }
        ]
    }
    assert "command line  seed" in captured.err


def test_settings_may_stand_after_the_command(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("check", str(recipe), "-q") == exit_code("-q", "check", str(recipe)) == 0
    assert exit_code("run", str(tmp_path), "--", "-q") == 7  # here it is a text
    capsys.readouterr()
    assert exit_code("check", "absent.yaml", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_said_plainly() -> None:
    program = f"{sys.executable} -m edgeicl schema recipe > /dev/full"
    done = subprocess.run(program, shell=True, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "error: No space left on device")
    assert len(done.stderr.splitlines()) == 2


def test_a_cache_folder_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.touch()
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(path))
    assert exit_code("cache", "list") == 1
    assert f"EDGEICL_CACHE_DIR names {path}, which is no folder" in capsys.readouterr().err


def test_more_threads_than_cores_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["bench"], ["compare", "--with", "optimum-int8"], ["eval", "--data", "builtin:nli"]):
        split = ["--split", "test"] * (command[0] == "eval")
        assert exit_code(*command, str(tmp_path), "--threads", "10000", *split) == 2
        assert re.search(r"--threads +10000 threads on \d+ cores; expected at most", capsys.readouterr().err)


def test_rows_of_any_data_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nzwei Wörter,x\nb,y\n")
    assert exit_code("data", f"file:{path}", "--limit", "1") == 0
    assert capsys.readouterr().out == '{"text": "zwei Wörter", "label": "x"}\n'
    assert exit_code("data", "builtin:nli/action", "--split", "test") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 10
    assert {"premise", "hypothesis", "label"} <= set(rows[0])
    assert exit_code("data", "file:absent.csv") == 2
    assert "SOURCE" in capsys.readouterr().err


def test_a_shipped_pretraining_recipe_is_found_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edgeicl.distill.pretrain.pretrain", lambda recipe, output: {"name": recipe.name})
    assert exit_code("pretrain", "nli-student", "-o", str(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "nli-student"}
    assert exit_code("pretrain", "nli-studnt", "-o", str(tmp_path)) == 2
    assert "did you mean 'nli-student'?" in capsys.readouterr().err


def test_an_artifact_that_is_none_is_code_7(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["run", str(tmp_path), "x"], ["bench", str(tmp_path)], ["inspect", str(tmp_path)]):
        assert exit_code(*command) == 7
        assert "is no artifact" in capsys.readouterr().err


def test_inspect_of_nothing_names_both_that_it_may_be_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("inspect", "build/quickstrt") == 2
    told = capsys.readouterr().err
    assert "there is no 'build/quickstrt'; expected an artifact's folder, a recipe file or a shipped" in told
    assert exit_code("inspect", "quickstrt") == 2
    assert "did you mean 'quickstart'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            BudgetError("small", smallest_bytes=5, next_step="ask for more"),
            4,
            "error: small\nnext: ask for more",
        ),
        (EdgeiclError("plain"), 1, "error: plain"),
        (ZeroDivisionError("oops"), 1, "unexpected ZeroDivisionError: oops\nnext: run it again as `edgeicl"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device\nnext: make room"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied\nnext: "),
        (OSError("a library's own"), 1, "unexpected OSError: a library's own\nnext: run it again as"),
        (KeyboardInterrupt(), 130, "interrupted; what is finished is kept, and not made anew"),
    ],
)
def test_errors_become_messages_and_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("edgeicl.job.resolve", fails)
    assert exit_code("check", "r.yaml") == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    if code != 130:
        assert exit_code("--debug", "check", "r.yaml") == code
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_cleans_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ending: signal.Signals
) -> None:
    cleaned = []

    def work(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), ending)
            time.sleep(5)
        finally:
            cleaned.append("up")

    monkeypatch.setattr("edgeicl.job.resolve", work)
    before = signal.getsignal(ending)
    assert exit_code("check", "r.yaml") == 143
    assert cleaned == ["up"]
    assert (
        capsys.readouterr().err
        == "terminated; what is finished is kept, and not made anew when the same command is run again\n"
    )
    assert signal.getsignal(ending) == before


def test_only_the_writer_of_several_processes_speaks(tmp_path: Path) -> None:
    done = run("check", "absent.yaml", folder=tmp_path, RANK="1", WORLD_SIZE="2")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    alone = run("check", "absent.yaml", folder=tmp_path, RANK="1", WORLD_SIZE="1")
    assert "there is no 'absent.yaml'" in alone.stderr


def test_the_cache_is_listed_and_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeicl.store import Store

    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path))
    Store(tmp_path).run("stage", {}, lambda folder: None)
    assert exit_code("cache", "list") == 0
    assert "stage" in capsys.readouterr().out
    assert exit_code("cache", "clear") == 0
    assert "removed 1 stage outputs" in capsys.readouterr().out
