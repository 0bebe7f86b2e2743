"""What `edgeicl plan` says of the target's own measurements."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgeicl import cli
from edgeicl.specs.catalog import load_target
from edgeicl.specs.loading import dump_yaml
from edgeicl.specs.target import Calibration


@pytest.mark.parametrize(("disturbance", "told"), [(2.7, True), (1.2, False), (None, False)])
def test_a_disturbed_probe_is_told(
    disturbance: float | None, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "probed.yaml"
    calibration = Calibration(
        bandwidth_bytes_per_second=1e9, disturbance=disturbance, measurements=1, source="here"
    )
    target.write_text(dump_yaml(load_target("host-cpu").model_copy(update={"calibration": calibration})))
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit) as caught:
        cli.main(["plan", "quickstart", "-t", str(target), "--json"])
    assert caught.value.code == 0
    assert ("was measured on a busy computer, whose medians were 2.7 times" in caplog.text) is told
