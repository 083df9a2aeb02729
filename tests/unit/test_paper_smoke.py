import json
from pathlib import Path

import numpy as np
import pytest
from cli_fakes import call

from comask.experiments.paper.changes import measure, read_changes

REAL = Path(__file__).parents[2] / "experiments" / "paper"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The real study, tiny, trained for real."""
    return tmp_path_factory.mktemp("smoke")


@pytest.mark.xdist_group("paper-smoke")
def test_the_whole_study_runs_and_is_reported(capsys, smoke):
    where = ("--study", REAL, "--smoke", smoke)
    code, out, err = call(capsys, "paper", "run", *where)
    assert code == 0, err
    assert len(out.splitlines()) > 60
    assert call(capsys, "paper", "run", *where)[:2] == (0, "")
    _, out, _ = call(capsys, "paper", "list", "--json", *where)
    assert {row["state"] for row in json.loads(out)} == {"finished"}
    assert call(capsys, "paper", "report", *where)[0] == 0
    text = (smoke / "report" / "report.md").read_text()
    for name in (
        "dirichlet-by-uplink",
        "dirichlet-by-round-others",
        "dirichlet-changes-fedadam-ssm",
        "local-steps",
    ):
        assert f"]({name}.png)" in text
        assert (smoke / "report" / f"{name}.svg").exists()
    assert "2 rounds of 1 to 5 local steps" in text
    _, out, _ = call(capsys, "paper", "claims", "--json", *where)
    (facts,) = json.loads(out)
    rivals = {
        rival["rival"] for check in facts["checks"] for rival in check["rivals"] if check["claim"] == "ahead"
    }
    assert rivals == {
        "one-bit-adam",
        "one-bit-adam, one scale",
        "zero-one-adam",
        "efficient-adam",
        "ce-fedavg",
    }
    code, out, _ = call(capsys, "paper", "claims", *where)
    assert "best rival" in out


@pytest.mark.xdist_group("paper-smoke")
def test_a_measured_run_is_the_same_run(capsys, smoke, tmp_path):
    """The probe changes nothing: the same run without it has the same rounds."""
    assert (
        call(capsys, "paper", "run", "--study", REAL, "--smoke", smoke)[0] == 0
    )  # nothing, if the test above was here
    (measured,) = smoke.glob("runs/*local-steps=2*/fedadam-ssm_lr=*/seed-0")
    changes = read_changes(measured)
    assert len(changes) == 2
    assert all(row.w > 0 and row.m > 0 and row.v > 0 for row in changes)
    plain = tmp_path / "plain"
    code, _, err = call(capsys, "run", "--config", measured / "config.toml", "--workers", 0, "--out", plain)
    assert code == 0, err

    def rounds(folder):
        rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert rounds(plain) == rounds(measured)


def test_changes_worked_out_by_hand():
    # Ten positions, two kept: of |dW| 0 and 1, of |dM| 1 and 2, of |dV| 8 and 9.
    delta = np.zeros((3, 10), np.float32)
    delta[0, :2] = [3.0, -4.0]
    delta[1, 1:3] = [1.0, 2.0]
    delta[2, 8:] = [0.5, 0.5]
    found = measure(delta, 0.2)
    assert (found.w, found.m, found.v) == pytest.approx((0.7, 0.3, 0.1))
    assert (found.w_m, found.w_v, found.m_v) == (0.5, 0.0, 0.0)
    assert (found.kept_w, found.kept_m, found.kept_v) == pytest.approx((1.0, 1 / 5, 0.0))
