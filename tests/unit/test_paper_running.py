import json
import shutil

import pytest
from cli_fakes import call, install
from paper_records import FILES, write_study

from comask.data.fashion_mnist import read_fashion_mnist_mini
from comask.errors import DataNotFoundError
from comask.experiments.exits import INTERRUPTED, USAGE
from comask.experiments.paper.study import load_paper
from comask.experiments.paper.tuning import tune


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path)


def run_paper(capsys, study, *arguments):
    return call(capsys, "paper", "run", *arguments, "--study", study)


def finished(out):
    """Return what was done, in order, without its outcome."""
    return [line.rsplit(":", 1)[0] for line in out.splitlines()]


def test_runs_go_in_the_studys_order_core_first_and_only_once(capsys, monkeypatch, study):
    opened = install(monkeypatch)
    code, out, _ = run_paper(capsys, study)
    assert code == 0
    done = finished(out)
    first_core = done.index("compare: fedadam, seed 0")
    assert all(line.startswith("tuning") and "fedavg" not in line for line in done[:first_core])
    assert done.index("tuning: fedavg (lr 0.1), seed 100") > done.index("compare: fedadam-ssm, seed 1")
    assert len(done) == len(opened) == 8 + 8 + 4
    code, out, _ = run_paper(capsys, study)
    assert (code, out, len(opened)) == (0, "", 20)


def test_the_chosen_rate_is_the_one_that_runs(capsys, monkeypatch, study):
    install(monkeypatch)
    run_paper(capsys, study)
    chosen = tune(load_paper(study).studies["tuning"], study / "runs")["fedavg"].rate
    assert chosen in {0.1, 0.3}
    ran = {folder.parent.name for folder in study.glob("runs/*/fedavg*/seed-0")}
    assert ran == {f"fedavg_lr={chosen}"}


def test_tuning_goes_on_to_the_rates_that_its_search_reaches(capsys, monkeypatch, tmp_path):
    wide = FILES["paper"].replace("sgd = [0.1, 0.3]", "sgd = [0.01, 0.03, 0.1, 0.3, 1.0]")
    study = write_study(tmp_path, paper=wide)
    monkeypatch.setattr("comask.experiments.paper.tuning.score", lambda runs: -runs[0].config.lr)
    install(monkeypatch)
    _, out, _ = run_paper(capsys, study, "tuning")
    tried = [line for line in finished(out) if "fedavg" in line]
    assert tried == [f"tuning: fedavg (lr {rate:g}), seed 100" for rate in (0.03, 0.1, 0.3, 0.01)]
    found = tune(load_paper(study).studies["tuning"], study / "runs")["fedavg"]
    assert (found.rate, found.at_edge) == (0.01, True)


def test_an_interrupted_run_is_continued_where_it_was(capsys, monkeypatch, study):
    install(monkeypatch, interrupt_at=2)
    code, _, err = run_paper(capsys, study, "tuning")
    assert code == INTERRUPTED
    assert "The same command continues." in err
    opened = install(monkeypatch)
    code, out, _ = run_paper(capsys, study, "tuning")
    assert code == 0
    assert opened[0].start_round == 2
    assert [simulation.start_round for simulation in opened[1:]] == [1] * 7
    assert "2 rounds" in out.splitlines()[0]


def test_a_run_without_its_checkpoint_starts_over(capsys, monkeypatch, study):
    install(monkeypatch, interrupt_at=2)
    run_paper(capsys, study, "tuning")
    (checkpoint,) = study.rglob("checkpoint")
    records = checkpoint.parent / "rounds.jsonl"
    assert len(records.read_text().splitlines()) == 1
    shutil.rmtree(checkpoint)  # as after a clone: records travel, checkpoints do not
    opened = install(monkeypatch)
    code, _, _ = run_paper(capsys, study, "tuning")
    assert (code, opened[0].start_round) == (0, 1)
    assert len(records.read_text().splitlines()) == 2


def test_checkpoints_are_removed_when_a_run_is_done(capsys, monkeypatch, study):
    install(monkeypatch)
    run_paper(capsys, study, "tuning")
    assert not list(study.rglob("checkpoint"))
    assert len(list(study.rglob("summary.json"))) == 8


def test_a_part_for_a_gpu_is_left_out_without_one(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    text = FILES["tuning"] + 'device = "cuda"\n'
    study = write_study(tmp_path, tuning=text)
    opened = install(monkeypatch)
    code, out, err = run_paper(capsys, study)
    assert (code, out, opened) == (0, "", [])
    assert "tuning was left out: it asks for a CUDA device and there is none." in err
    _, out, _ = call(capsys, "paper", "list", "--study", study)
    assert "cannot run here" in out.splitlines()[0]
    assert "waits for learning rates" in out.splitlines()[1]


def test_a_part_whose_data_are_nowhere_is_left_out_and_the_others_run(capsys, monkeypatch, tmp_path):
    def load_dataset(name, *, root=None):
        if name == "svhn":
            raise DataNotFoundError("Data set 'svhn' was not found. Looked in:\n  nowhere")
        return read_fashion_mnist_mini()

    monkeypatch.setattr("comask.data.load_dataset", load_dataset)
    install(monkeypatch)
    study = write_study(
        tmp_path,
        tuning=FILES["tuning"].replace("fashion-mnist-mini", "svhn"),
        effect=FILES["effect"].replace('tuning = "tuning"\n', ""),
    )
    code, out, err = run_paper(capsys, study)
    assert code == 0
    assert "tuning was left out: Data set 'svhn' was not found.\n" in err
    assert {line.split(":")[0] for line in finished(out)} == {"effect"}


def test_the_list_counts_what_is_done(capsys, monkeypatch, study):
    def states():
        _, out, _ = call(capsys, "paper", "list", "--json", "--study", study)
        return {row["name"]: row for row in json.loads(out)}

    assert states()["tuning"]["state"] == "not begun"
    install(monkeypatch, interrupt_at=2)
    run_paper(capsys, study, "tuning")
    assert (states()["tuning"]["state"], states()["tuning"]["rounds_done"]) == ("begun", 1)
    install(monkeypatch)
    run_paper(capsys, study, "tuning")
    found = states()
    assert (found["tuning"]["state"], found["tuning"]["finished"], found["tuning"]["rounds_done"]) == (
        "finished",
        8,
        16,
    )
    assert (found["compare"]["state"], found["compare"]["waiting"]) == ("not begun", 0)


def test_an_unknown_part_is_a_usage_error(capsys, study):
    code, _, err = run_paper(capsys, study, "tunning")
    assert code == USAGE
    assert "tuning" in err


def test_the_report_goes_between_the_marks_and_says_what_is_missing(capsys, monkeypatch, study):
    install(monkeypatch)
    run_paper(capsys, study, "tuning", "compare")
    page = study / "page.md"
    page.write_text(
        "before\n<!-- study: made by `comask paper report` -->\nold\n<!-- end of study -->\nafter\n"
    )
    code, _, _ = call(capsys, "paper", "report", "--study", study, "--into", page)
    assert code == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("<!-- end of study -->\nafter\n")
    assert "\nold\n" not in text
    assert "](report/compare-by-uplink.png)" in text
    assert (study / "report" / "compare-by-uplink.png").stat().st_size > 10_000
    assert "| effect | 0 | 4 | not begun | An effect |" in text
    again = text
    call(capsys, "paper", "report", "--study", study, "--into", page)
    assert page.read_text() == again


def test_a_page_without_marks_is_left_alone(capsys, study):
    page = study / "page.md"
    page.write_text("mine\n")
    code, _, err = call(capsys, "paper", "report", "--study", study, "--into", page)
    assert code == USAGE
    assert "must hold the lines" in err
    assert page.read_text() == "mine\n"
