"""Cohorts: a function of the seed and the round, never of order."""

from __future__ import annotations

import pytest

from comask.cohort import sample_cohort


def test_everybody_at_fraction_one():
    assert sample_cohort([5, 2, 9], 1.0, seed=0, round_number=1) == (2, 5, 9)


@pytest.mark.parametrize(("fraction", "size"), [(0.01, 1), (0.1, 1), (0.34, 3), (0.5, 5), (0.99, 10)])
def test_size_and_order(fraction, size):
    clients = range(10, 20)
    cohorts = {sample_cohort(clients, fraction, seed=1, round_number=number) for number in range(1, 30)}
    assert {len(cohort) for cohort in cohorts} == {size}
    assert all(list(cohort) == sorted(set(cohort)) for cohort in cohorts)
    assert {client for cohort in cohorts for client in cohort} == set(clients)


def test_the_order_of_the_clients_does_not_matter():
    arguments = {"fraction": 0.5, "seed": 3, "round_number": 4}
    assert sample_cohort([17, 3, 4, 99, 12], **arguments) == sample_cohort([99, 12, 17, 4, 3], **arguments)


def test_each_client_is_chosen_about_equally_often():
    times = [
        client
        for number in range(2000)
        for client in sample_cohort(range(5), 0.4, seed=0, round_number=number)
    ]
    assert all(740 <= times.count(client) <= 860 for client in range(5))
