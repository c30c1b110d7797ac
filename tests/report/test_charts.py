from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image
from synthetic_run import make_run

from srpo.report.charts import Axes, Line, Point, chart, extent, ticks
from srpo.report.plots import learning_curve_png
from srpo.report.run import load_run, percent


def test_ticks_are_round() -> None:
    assert ticks(0, 1, 4) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 20, 10) == list(range(0, 21, 2))
    assert ticks(0, 3, 9, whole=True) == [0, 1, 2, 3]
    assert ticks(5, 5, 4) == [5]


def test_extent_has_air_and_begins_at_zero() -> None:
    assert extent([1.0, None, 2.0]) == (0.0, pytest.approx(2.08))
    assert extent([-1.0, 1.0]) == (pytest.approx(-1.16), pytest.approx(1.16))
    assert extent([None]) == (0.0, 1.0)


def test_positions_gaps_and_escaping() -> None:
    axes = Axes(200, 100, (0, 10), (0, 1), left=20, right=20, top=10, bottom=10)
    assert (axes.px(5), axes.py(0.25)) == (100, 70)  # 20 + 160 / 2; 90 - 80 / 4
    line = Line([0, 5, 10], [0.0, None, 1.0], "train", [0.0, None, 0.5], [0.5, None, 1.0])
    svg = chart(axes, [line], [Point(5, 0.25, 0, 0.5, "after", "<25 %>", "25 %")], title='a "title"')
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'a "title"'
    assert [p.get("points") for p in root.iter("polyline")] == ["20,90", "180,10"]
    (mark,) = (c for c in root.iter("circle") if c.get("class") == "mark after")
    assert (mark.get("cx"), mark.get("cy")) == ("100", "70")
    assert "&lt;25 %&gt;" in svg


def test_percent_never_rounds_to_all_or_nothing() -> None:
    assert [percent(s) for s in (0.0, 0.001, 0.46, 0.998, 0.9999, 1.0)] == [
        "0 %", "0.1 %", "46 %", "99.8 %", "99.9 %", "100 %",
    ]  # fmt: skip


def test_curves_of_a_run(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "quick", videos=False))
    assert [(step, rate.successes) for step, rate in run.training_curve()] == [(k, 8 + k) for k in range(1, 7)]
    assert [(step, rate.successes) for step, rate in run.evaluation_curve()] == [(0, 23), (3, 35), (6, 47)]
    assert run.paired() == (50, 24, 0)
    path = learning_curve_png(run.folder, tmp_path / "docs" / "curve.png")
    with Image.open(path) as image:
        assert image.size == (1600, 800)
        assert len(image.convert("RGB").resize((80, 40)).getcolors(3200)) > 10
    assert not re.search("partial", " ".join(p.name for p in path.parent.iterdir()))
