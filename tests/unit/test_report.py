import csv
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from cli_fakes import call, make_record
from hypothesis import given, settings
from hypothesis import strategies as st

from comask.algorithms import ALGORITHMS
from comask.errors import CheckpointError, ConfigError
from comask.experiments.config import RunConfig
from comask.experiments.folder import RunFolder
from comask.experiments.report import write_report
from comask.experiments.resolve import resolve
from comask.experiments.results import choose_target, curve, find_runs, group_runs
from comask.experiments.table import cells, make_rows, to_csv, to_markdown

DENSE = {"mask": 0, "values": 2_000_000, "overhead": 0, "paper_bits": 16_000_000}
SPARSE = {"mask": 20_000, "values": 80_000, "overhead": 0, "paper_bits": 960_000}


def write_run(root, algorithm, seed, accuracies, *, rounds=None, sizes=SPARSE, **given_settings):
    """Write the folder of a run whose rounds had these accuracies; None: not evaluated."""
    chosen = {
        "algorithm": algorithm,
        "seed": seed,
        "rounds": rounds or len(accuracies),
        "model": "logistic",
    } | given_settings
    label = "-".join(map(str, chosen.values()))
    folder = RunFolder(root / label)
    folder.create(resolve(RunConfig(**chosen)).to_toml(), overwrite=False)
    for number, accuracy in enumerate(accuracies, start=1):
        folder.append(make_record(number, accuracy=accuracy, **sizes))
    folder.write_summary(
        {"status": "finished", "precision": "float32", "sessions": [{"command": "comask compare <&>"}]}
    )
    return folder


def load(root):
    runs, notes = find_runs([root])
    return group_runs(runs, list(ALGORITHMS)), notes


@pytest.fixture
def study(tmp_path):
    """Dense: finals 0.90 and 0.80, so the target is 0.98 * 0.85 = 0.833; sparse reaches it with one of two seeds."""
    write_run(tmp_path, "fedadam", 0, [0.5, 0.86, 0.90], sizes=DENSE)
    write_run(tmp_path, "fedadam", 1, [0.5, 0.84, 0.80], sizes=DENSE)
    write_run(tmp_path, "fedadam-ssm", 0, [0.4, 0.7, 0.84])
    write_run(tmp_path, "fedadam-ssm", 1, [0.4, 0.6, 0.82])
    write_run(tmp_path, "fedadam-ssm-m", 0, [0.1, 0.2, 0.3])
    write_run(tmp_path, "fedadam-ssm-m", 1, [0.1, 0.2, 0.3])
    return tmp_path


def test_the_table_has_the_numbers_worked_out_by_hand(study):
    groups, notes = load(study)
    target = choose_target(groups, None)
    dense, sparse, never = make_rows(groups, target)
    assert notes == []
    assert target.accuracy == pytest.approx(0.833)
    assert target.rule == "0.98 of the mean final accuracy of fedadam, the best dense algorithm"
    assert dense.final_accuracy == pytest.approx(0.85)
    assert dense.final_accuracy_std == pytest.approx(0.1 / 2**0.5)
    assert (dense.reached, dense.rounds_to_target, dense.uplink_mb_to_target) == (2, 2, 4.0)
    assert (dense.uplink_mb_per_round, dense.paper_mb_per_round, dense.mask_share) == (2.0, 2.0, 0.0)
    assert (sparse.reached, sparse.rounds_to_target) == (1, 3)
    assert sparse.uplink_mb_to_target == pytest.approx(0.3)
    assert sparse.uplink_mb_per_round == pytest.approx(0.1)
    assert sparse.paper_mb_per_round == pytest.approx(0.12)
    assert sparse.mask_share == pytest.approx(0.2)
    assert (never.reached, never.rounds_to_target, never.uplink_mb_to_target) == (0, None, None)
    assert dense.seconds_per_round == 0.5


def test_the_table_says_not_reached_and_how_many_seeds_did(study):
    groups, _ = load(study)
    dense, sparse, never = map(cells, make_rows(groups, choose_target(groups, None)))
    assert dense[2] == "85.00 ± 7.07 %"
    assert dense[-3:-1] == ("2", "4 MB")
    assert sparse[-3:-1] == ("3 (1 of 2)", "0.3 MB (1 of 2)")
    assert never[-3:-1] == ("not reached", "not reached")


def test_markdown_and_csv_hold_every_row(study):
    groups, _ = load(study)
    rows = make_rows(groups, choose_target(groups, 0.5))
    assert len(to_markdown(rows).splitlines()) == 2 + len(rows)
    read = list(csv.DictReader(to_csv(rows).splitlines()))
    assert [row["algorithm"] for row in read] == ["fedadam", "fedadam-ssm", "fedadam-ssm-m"]
    assert float(read[1]["rounds_to_target"]) == 2.0
    assert read[2]["rounds_to_target"] == ""


def test_a_target_is_taken_as_asked_and_must_be_an_accuracy(study):
    groups, _ = load(study)
    assert choose_target(groups, 0.7).accuracy == 0.7
    for wrong in (0.0, 85.0):
        with pytest.raises(ConfigError, match=f"--target must be a number with 0 < value <= 1, got {wrong}"):
            choose_target(groups, wrong)


def test_without_a_dense_algorithm_the_best_of_all_sets_the_target(tmp_path):
    write_run(tmp_path, "fedadam-ssm", 0, [0.6])
    write_run(tmp_path, "fedadam-top", 0, [0.5])
    groups, _ = load(tmp_path)
    target = choose_target(groups, None)
    assert target.accuracy == pytest.approx(0.98 * 0.6)
    assert "fedadam-ssm, the best algorithm, as none of them is dense" in target.rule


def test_dense_means_every_position_in_full_precision(tmp_path):
    write_run(tmp_path, "fedadam", 0, [0.6])
    write_run(tmp_path, "fedadam", 1, [0.6], options={"codec": "half"})
    write_run(tmp_path, "fedavg", 0, [0.5])
    write_run(tmp_path, "fedavg-8bit", 0, [0.7])
    write_run(tmp_path, "fedadam-ssm", 0, [0.8])
    groups, _ = load(tmp_path)
    assert {group.label for group in groups if group.is_dense} == {"fedadam (codec exact)", "fedavg"}


def test_a_curve_is_the_mean_over_seeds_of_the_rounds_that_all_have_evaluated(tmp_path):
    write_run(tmp_path, "fedadam-ssm", 0, [None, 0.4, None, 0.8, 0.9])
    write_run(tmp_path, "fedadam-ssm", 1, [None, 0.6, None, 0.6], rounds=5)
    ((group,), notes) = load(tmp_path)
    course = curve(group)
    assert course.rounds.tolist() == [2, 4]
    assert course.accuracy == pytest.approx([0.5, 0.7])
    assert course.spread == pytest.approx([0.1 * 2**0.5] * 2)
    assert course.uplink == pytest.approx([200_000, 400_000])
    assert notes == ["fedadam-ssm, seed 1, has 4 of 5 rounds."]


def test_one_seed_has_no_spread(tmp_path):
    write_run(tmp_path, "fedadam-ssm", 0, [0.4, 0.5])
    ((group,), _) = load(tmp_path)
    (row,) = make_rows([group], choose_target([group], None))
    assert row.final_accuracy_std is None
    assert cells(row)[2] == "50.00 %"
    assert curve(group).spread.tolist() == [0.0, 0.0]


def test_runs_of_one_algorithm_with_other_settings_are_told_apart(tmp_path):
    write_run(tmp_path, "fedadam-ssm", 0, [0.4], density=0.05)
    write_run(tmp_path, "fedadam-ssm", 0, [0.4], density=0.01)
    write_run(tmp_path, "fedadam-ssm", 0, [0.4], options={"codec": "half"})
    write_run(tmp_path, "fedavg", 0, [0.4], workers=2)
    groups, _ = load(tmp_path)
    labels = {group.label for group in groups}
    assert labels == {
        "fedadam-ssm (density 0.05, codec exact)",
        "fedadam-ssm (density 0.01, codec exact)",
        "fedadam-ssm (density 0.05, codec half)",
        "fedavg",
    }


def test_the_same_run_twice_is_refused_but_naming_a_folder_twice_is_not(tmp_path):
    write_run(tmp_path / "a", "fedadam-ssm", 0, [0.4])
    runs, _ = find_runs([tmp_path, tmp_path / "a"])
    assert len(runs) == 1
    write_run(tmp_path / "b", "fedadam-ssm", 0, [0.4])
    with pytest.raises(ConfigError, match="hold the same run: same settings, same seed"):
        load(tmp_path)


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder; name the folder of a run"):
        find_runs([tmp_path / "nowhere"])
    write_run(tmp_path, "fedadam-ssm", 0, [None, None])
    with pytest.raises(ConfigError, match="There is no run with an evaluated round in"):
        find_runs([tmp_path])


def test_a_run_that_was_never_evaluated_is_left_out_with_a_note(tmp_path, capsys):
    write_run(tmp_path, "fedadam-ssm", 0, [0.5])
    write_run(tmp_path, "fedadam-top", 0, [None])
    write_run(tmp_path, "fedavg", 0, [], rounds=3)
    groups, notes = load(tmp_path)
    assert [group.algorithm for group in groups] == ["fedadam-ssm"]
    expected = [
        f"{name}, seed 0, has no evaluated round and is left out." for name in ("fedadam-top", "fedavg")
    ]
    assert notes == expected
    _, _, stderr = call(capsys, "report", tmp_path)
    assert stderr.splitlines() == expected
    page = (tmp_path / "report" / "report.html").read_text()
    assert all(note in page for note in expected)


def test_damaged_records_are_refused(tmp_path):
    folder = write_run(tmp_path, "fedadam-ssm", 0, [0.5, 0.6])
    folder.rounds.write_text("{}\n" + folder.rounds.read_text())
    with pytest.raises(CheckpointError, match="line 1, is not a round's record"):
        find_runs([tmp_path])


def test_the_report_is_one_file_that_loads_nothing(study, capsys):
    code, stdout, _ = call(capsys, "report", study, "--title", "A <study> & more")
    out = study / "report"
    assert (code, stdout) == (0, f"Written: {out / 'report.html'}\n")
    page = (out / "report.html").read_text()
    assert "A &lt;study&gt; &amp; more" in page
    assert not re.search(r"<(script|link|iframe)|@import|url\(", page)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert page.count('<td class="none">not reached</td>') == 2
    assert "comask compare &lt;&amp;&gt;" in page
    assert "algorithm = &quot;fedadam-ssm&quot;" in page
    names = {"accuracy-by-uplink", "accuracy-by-round", "bytes-by-part"}
    for kind, magic in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert all((out / f"{name}.{kind}").read_bytes().startswith(magic) for name in names)
    assert {"table.md", "table.csv"} <= {file.name for file in out.iterdir()}


def test_the_same_runs_give_the_same_report(study):
    write_report([study], study / "a")
    write_report([study], study / "b")
    for file in sorted((study / "a").iterdir()):
        assert file.read_bytes() == (study / "b" / file.name).read_bytes(), file.name


def test_every_algorithm_has_a_look_of_its_own_and_the_same_in_every_report(tmp_path):
    from comask.experiments.figures import styles

    for name in ALGORITHMS:
        write_run(tmp_path, name, 0, [0.5])
    groups, _ = load(tmp_path)
    order = list(ALGORITHMS)
    looks = styles(groups, order)
    assert len(set(looks)) == len(order)
    assert all(
        styles([group], order)[0].marker == look.marker for group, look in zip(groups, looks, strict=True)
    )
    assert styles(groups[:8], order) == looks[:8]


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_up_to_eight_algorithms_have_eight_colours(data):
    from comask.experiments.figures import styles

    names = data.draw(st.lists(st.sampled_from(list(ALGORITHMS)), max_size=8, unique=True))
    looks = styles([SimpleNamespace(algorithm=name) for name in names], list(ALGORITHMS))
    assert len({look.colour for look in looks}) == len(names)


def test_groups_of_one_algorithm_look_different(tmp_path):
    from comask.experiments.figures import styles

    for density in (0.01, 0.02, 0.05):
        write_run(tmp_path, "fedadam-ssm", 0, [0.5], density=density)
    groups, _ = load(tmp_path)
    assert len(set(styles(groups, list(ALGORITHMS)))) == 3


def test_the_figures_show_the_curves_best_first_and_the_bytes_by_part(study):
    from comask.experiments import figures

    groups, _ = load(study)
    looks = figures.styles(groups, list(ALGORITHMS))
    figure = figures.accuracy_by_uplink(groups, looks, choose_target(groups, None))
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    dense = next(line for line in axes.get_lines() if line.get_label().startswith("fedadam "))
    assert dense.get_xdata() == pytest.approx([2, 4, 6])
    assert dense.get_ydata() == pytest.approx([50, 85, 85])
    (legend,) = figure.legends
    assert [text.get_text().split()[0] for text in legend.get_texts()] == [
        "fedadam",
        "fedadam-ssm",
        "fedadam-ssm-m",
    ]
    parts = figures.bytes_by_part(groups).axes[1]
    widths = [bar.get_width() for bar in parts.patches]
    assert widths == pytest.approx([0, 20, 20, 100, 80, 80, 0, 0, 0, 0, 0, 0])


def test_workers_and_rounds_do_not_split_a_group(tmp_path):
    write_run(tmp_path, "fedadam-ssm", 0, [0.5, 0.6], workers=0)
    write_run(tmp_path, "fedadam-ssm", 1, [0.5], workers=2)
    ((group,), _) = load(tmp_path)
    assert [run.config.seed for run in group.runs] == [0, 1]
    assert group.label == "fedadam-ssm"


def test_refused_and_dropped_clients_are_counted_in_the_page(tmp_path):
    folder = write_run(tmp_path, "fedadam-ssm", 0, [0.5])
    folder.append(replace(make_record(2), dropped=(0, 1, 2)))
    page = write_report([tmp_path], tmp_path / "report")[0].read_text()
    assert "<td>0</td><td>4</td>" in page
