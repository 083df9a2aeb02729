import math

import pytest
from paper_records import group, write_run

from comask.experiments.paper.claims import AHEAD, FASTER, check_claims, lead, speed_ratio
from comask.experiments.paper.measures import accuracy_at_uplink, rounds_to, traffic_to, uplink_to
from comask.experiments.paper.versus import against_all, outcome, sentences


@pytest.fixture
def course(tmp_path):
    """Evaluated in every second round: 0.2, 0.6, 0.5, 0.8 after rounds 2, 4, 6, 8; 100 bytes up and 50 down a round."""
    return write_run(tmp_path / "run", [None, 0.2, None, 0.6, None, 0.5, None, 0.8], algorithm="fedadam")


@pytest.mark.parametrize(
    ("accuracy", "rounds"),
    [
        (0.1, 2.0),  # at the first evaluation: nothing is known before
        (0.2, 2.0),
        (0.3, 2.5),  # a quarter of the way from 0.2 in round 2 to 0.6 in round 4
        (0.6, 4.0),
        (0.7, 6 + 2 * 2 / 3),  # from 0.5 in round 6 to 0.8 in round 8; the dip does not count
        (0.8, 8.0),
    ],
)
def test_rounds_and_bytes_to_a_target_lie_on_the_line_between_evaluations(course, accuracy, rounds):
    assert rounds_to(course, accuracy) == pytest.approx(rounds)
    assert uplink_to(course, accuracy) == pytest.approx(100 * rounds)
    assert traffic_to(course, accuracy) == pytest.approx(150 * rounds)


def test_a_target_that_is_not_reached_is_none(course):
    assert rounds_to(course, 0.81) is None
    assert uplink_to(course, 0.81) is None


@pytest.mark.parametrize(
    ("budget", "expected"), [(199, None), (200, 0.2), (300, 0.4), (500, 0.55), (800, 0.8), (801, None)]
)
def test_accuracy_at_a_budget_is_known_between_the_first_evaluation_and_the_end(course, budget, expected):
    assert accuracy_at_uplink(course, budget) == (None if expected is None else pytest.approx(expected))


def test_the_speed_ratio_is_the_geometric_mean_over_seeds(tmp_path):
    subject = group(tmp_path, "fedadam-ssm", [0.1, 0.8, 0.9], [0.1, 0.8, 0.9], [0.1, 0.8, 0.9])  # round 2
    rival = group(
        tmp_path, "rival", [0.1, 0.1, 0.1, 0.8], [0.1, 0.1, 0.1, 0.8], [0.8, 0.8, 0.9, 0.9]
    )  # rounds 4, 4, 1
    found = speed_ratio(subject, rival, 0.8, "rounds")
    assert found.estimate.mean == pytest.approx((2 * 2 * 0.5) ** (1 / 3))
    assert (found.bound, found.seeds, found.verdict) == ("", 3, "undecided")


def test_a_rival_that_never_arrives_gives_a_bound_from_below(tmp_path):
    subject = group(tmp_path, "fedadam-ssm", [0.8, 0.8, 0.8, 0.8], [0.8, 0.8, 0.8, 0.8])
    rival = group(tmp_path, "rival", [0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1])
    found = speed_ratio(subject, rival, 0.8, "rounds")
    assert found.estimate.mean == pytest.approx(4.0)
    assert (found.bound, found.verdict) == ("at least", "reproduced")
    backwards = speed_ratio(rival, subject, 0.8, "rounds")
    assert backwards.estimate.mean == pytest.approx(0.25)
    assert (backwards.bound, backwards.verdict) == ("at most", "not reproduced")


def test_a_bound_never_decides_against_what_it_bounds(tmp_path):
    subject = group(tmp_path, "fedadam-ssm", [0.1, 0.1, 0.1, 0.8], [0.1, 0.1, 0.1, 0.8])
    rival = group(tmp_path, "rival", [0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1])
    found = speed_ratio(subject, rival, 0.8, "rounds")  # at least 1.0: the truth may well be above 1.1
    assert found.estimate.high < FASTER
    assert (found.bound, found.verdict) == ("at least", "undecided")


def test_seeds_in_which_nobody_arrives_say_nothing(tmp_path):
    subject = group(tmp_path, "fedadam-ssm", [0.1, 0.1], [0.1, 0.9])
    rival = group(tmp_path, "rival", [0.1, 0.2], [0.9, 0.9])
    found = speed_ratio(subject, rival, 0.9, "rounds")
    assert found.seeds == 1
    assert found.estimate.mean == pytest.approx(0.5)
    assert found.verdict == "undecided"  # one seed never decides
    assert speed_ratio(subject, rival, 0.95, "rounds").estimate is None


def test_the_lead_at_equal_rounds_is_taken_seed_by_seed(tmp_path):
    subject = group(tmp_path, "fedadam-ssm", [0.5, 0.80], [0.5, 0.70])
    rival = group(tmp_path, "rival", [0.5, 0.60], [0.5, 0.50])
    found, place = lead(subject, rival, "rounds")
    assert place == 2
    assert (found.estimate.mean, found.estimate.low) == (pytest.approx(20.0), pytest.approx(20.0))
    assert found.verdict == "reproduced"  # both seeds say 20 points, over 14.5
    assert lead(rival, subject, "rounds")[0].verdict == "not reproduced"


def test_equal_bytes_are_those_of_the_one_that_sent_less(tmp_path):
    subject = group(tmp_path, "fedadam-ssm", [0.4, 0.6, 0.8], uplink=100)  # 300 bytes in the end
    rival = group(tmp_path, "rival", [0.1, 0.5, 0.9], uplink=200)  # 0.3 after 300
    found, place = lead(subject, rival, "uplink")
    assert place == 300
    assert found.estimate.mean == pytest.approx(100 * (0.8 - 0.3))
    assert found.bound == ""


def test_a_rival_that_sends_more_before_its_first_evaluation_is_given_more(tmp_path):
    subject = group(tmp_path, "fedadam-ssm", [0.4, 0.6], [0.4, 0.6], uplink=10)
    rival = group(tmp_path, "rival", [0.5, 0.7], [0.5, 0.7], uplink=1000)
    found, _ = lead(subject, rival, "uplink")
    assert found.estimate.mean == pytest.approx(10.0)
    assert (found.bound, found.verdict) == ("at least", "undecided")
    backwards, _ = lead(rival, subject, "uplink")
    assert (backwards.bound, backwards.verdict) == ("at most", "not reproduced")


def test_the_claims_are_held_against_the_best_rival(tmp_path):
    groups = [
        group(tmp_path, "fedadam", [0.5, 0.8, 0.9], [0.5, 0.8, 0.9]),
        group(tmp_path, "fedadam-ssm", [0.5, 0.8, 0.9], [0.5, 0.8, 0.9]),
        group(tmp_path, "slow", [0.1, 0.1, 0.2], [0.1, 0.1, 0.2]),
        group(tmp_path, "alike", [0.5, 0.8, 0.9], [0.5, 0.8, 0.9]),
        group(tmp_path, "few bits", [0.5, 0.6, 0.5], [0.5, 0.6, 0.5]),
    ]
    checks = check_claims(groups, ["slow", "alike"], ["few bits", "absent"])
    faster = [check for check in checks if check.claim == "faster" and check.basis == "rounds"]
    assert [check.at for check in faster] == pytest.approx([0.81, 0.855, 0.882])
    for check in faster:
        assert [finding.rival for finding in check.findings] == ["alike", "slow"]
        assert check.findings[0].estimate.mean == pytest.approx(1.0)
        assert check.verdict == "not reproduced"
    ahead = {check.basis: check for check in checks if check.claim == "ahead"}
    assert ahead["rounds"].findings[0].estimate.mean == pytest.approx(40.0)
    assert ahead["rounds"].verdict == "reproduced"
    assert ahead["rounds"].findings[0].estimate.low > AHEAD


def test_without_the_subject_there_is_nothing_to_check(tmp_path):
    assert check_claims([group(tmp_path, "fedadam", [0.5])], [], []) == []
    only = check_claims([group(tmp_path, "fedadam-ssm", [0.5])], ["absent"], ["absent"])
    assert {check.claim for check in only} == {"ahead"}  # dense FedAdam sets the targets of the other
    assert all(math.isnan(check.at) and check.verdict == "undecided" for check in only)


def test_one_seed_wins_nothing(tmp_path):
    groups = [group(tmp_path, "fedadam-ssm", [0.5, 0.9]), group(tmp_path, "worse", [0.5, 0.6])]
    found = against_all(groups)
    assert outcome(found[0].rounds) == "one seed"
    assert sentences(found, "rounds") == [
        "At equal rounds, one seed is too little to tell fedadam-ssm from `worse`."
    ]


def test_where_it_wins_ties_and_loses_is_said_of_every_rival(tmp_path):
    groups = [
        group(tmp_path, "fedadam-ssm", [0.50, 0.80], [0.50, 0.81]),
        group(tmp_path, "better", [0.50, 0.90], [0.50, 0.911]),
        group(tmp_path, "even", [0.50, 0.81], [0.50, 0.80]),
        group(tmp_path, "worse", [0.50, 0.70], [0.50, 0.711]),
    ]
    found = against_all(groups)
    assert {versus.rival: outcome(versus.rounds) for versus in found} == {
        "better": "loses",
        "even": "not told apart",
        "worse": "wins",
    }
    assert sentences(found, "rounds") == [
        "At equal rounds, fedadam-ssm wins against `worse`.",
        "At equal rounds, the seeds do not tell fedadam-ssm apart from `even`.",
        "At equal rounds, fedadam-ssm loses to `better`.",
    ]
