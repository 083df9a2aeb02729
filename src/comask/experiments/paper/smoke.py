"""The same study, tiny: every variant and every kind of part, on the embedded images, in less than a minute.

It shows that the whole path works, from the files to the claims. Its numbers mean nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from comask.experiments.paper.study import Paper, Study, Variant

_SEEDS = 2


def shrink(paper: Paper, runs: Path) -> Paper:
    """Return the first part of each kind, cut down to a few steps of a linear model.

    Args:
        paper: The study.
        runs: Where its records go.
    """
    variants = {label: replace(variant, rates=variant.rates[:1]) for label, variant in paper.variants.items()}
    first = {study.kind: study for study in reversed(list(paper.studies.values()))}
    studies = {
        name: _shrink(study, variants) for name, study in paper.studies.items() if study is first[study.kind]
    }
    order = tuple((name, core) for name, core in paper.order if name in studies)
    return Paper(paper.folder, runs, order, studies, variants)


def _shrink(study: Study, variants: dict[str, Variant]) -> Study:
    base = replace(
        study.base,
        dataset="fashion-mnist-mini",
        model="logistic",
        clients=3,
        rounds=2,
        local_steps=2,
        batch_size=8,
        eval_every=1,
        workers=0,
        device="cpu",
    )
    return replace(
        study,
        base=base,
        seeds=1 if study.kind == "tuning" else _SEEDS,
        variants=tuple(variants[variant.label] for variant in study.variants),
        grid={name: values[:2] for name, values in study.grid.items()},
    )
