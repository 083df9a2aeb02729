"""The documentation builds without a warning, shows every public name, and draws every formula."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import comask
from comask.algorithms import ALGORITHMS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_public_name_has_an_entry(site):
    entries = re.findall(r'<h[1-6] id="([\w.]+)"', (site / "reference.html").read_text("utf-8"))
    documented = {entry.rpartition(".")[2] for entry in entries}
    assert set(comask.__all__) - {"__version__"} <= documented


def test_every_algorithm_is_described(site):
    page = (site / "algorithms.html").read_text("utf-8")
    for name in ALGORITHMS:
        assert f'id="{name}"' in page


def test_formulas_are_drawn(site):
    for page in ("theory.html", "decisions/0050-theory-assumptions.html"):
        text = (site / page).read_text("utf-8")
        assert "<math" in text, page
        assert "arithmatex" not in text, page
        assert not re.search(r"\$[^<>$\n]*\\[a-zA-Z]+", text), page


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link)[^>]* (?:src|href)="(https?:[^"]+)"', page.read_text("utf-8")
        )
        assert not loaded, page
