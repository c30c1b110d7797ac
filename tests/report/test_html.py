from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_run import AFTER, evaluation, make_run, metrics_row

from srpo.report import html, write_report
from srpo.tracking import CsvLogger
from srpo.types import SrpoError

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, sources and text; checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "poster", "data"):
                self.sources.append(value or "")
            if name in ("href", "xlink:href", "action"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "quick")


@pytest.fixture
def run(complete: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(complete, tmp_path / "quick")
    return tmp_path / "quick"


def _page(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def _squeezed(page: Page) -> str:
    return re.sub(r"\s+", " ", page.text)


def test_everything_is_in_the_one_file(complete: Path) -> None:
    path = write_report(complete)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == complete / "report.html" and not list(complete.glob("*.partial"))
    assert "script" not in page.tags and page.links == [] and "http" not in text and "@import" not in text
    assert len(page.sources) == 4 and all(s.startswith("data:") for s in page.sources)  # two videos, two frames
    video = base64.b64decode(page.sources[0].partition("base64,")[2])
    assert video == (complete / "videos" / "before_libero_object-0_published-30.mp4").read_bytes()
    assert page.tags.count("video") == 2 and page.tags.count("img") == 2


def test_numbers(complete: Path) -> None:
    text = _squeezed(_page(complete))
    assert "From 46 % to 94 % on “pick up the <b>soup</b> & place it in the basket”" in text
    # Wilson 95 %, by hand for 23/50: centre (0.46 + 1.9207 / 50) / 1.07683 = 0.46285, half width 0.13307.
    assert "23 of 50 (33.0 to 59.6 %) before" in text
    assert "47 of 50 (83.8 to 97.9 %) after" in text
    assert "Of 50 starts attempted both times, 24 turned from failure to success and none the other way." in text
    assert "initial states that training never used" in text
    assert "+48 points" in text
    assert "RL steps6 of 6" in text and "Training episodes120" in text and "Simulator steps12,000" in text
    assert "Training time1:00" in text
    assert "1:00 for 6 RL steps, 10.0 s each. The evaluations took another 1:40" in text
    assert "rollout 0:42 (70 %)" in text and "update 0:18 (30 %)" in text
    assert "rewarded from 0.12 to 0.61" in text and "Failure, reward 0.61" in text
    assert "Before: failure, 48 steps" in text and "After: success, 48 steps" in text
    assert "evaluation at step 3: 35 of 50" in text
    assert "train.alpha0.8" in text and "srpo train libero-quick" in text and "at most 0.8" in text


def test_content_is_escaped(complete: Path) -> None:
    text = write_report(complete).read_text(encoding="utf-8")
    assert "<b>soup" not in text and "&lt;b&gt;soup&lt;/b&gt; &amp; place" in text
    assert "<EPYC>" not in text and "&lt;EPYC&gt;" in text
    assert text.count("<title>") >= 1 and "&lt;span" not in text and "&amp;amp;" not in text


def test_an_interrupted_run_says_so(run: Path) -> None:
    shutil.rmtree(run / "videos")
    for name in ("eval_after.json", "graded.json", "config.json", "provenance.json", "metrics.csv"):
        (run / name).unlink()
    (run / "config.json").write_text('{"steps": 6}')
    logger = CsvLogger(run / "metrics.csv")
    for k in (1, 2):
        logger.log(metrics_row(k))
    page = _page(run)
    text = _squeezed(page)
    assert "The run stopped after step 2 of 6" in text
    assert "There is no evaluation after training" in text
    assert "From 45 % to 50 % in training rollouts" in text  # 9 and 10 of 20
    assert "rollouts at step 1: 9 of 20 (25.8 to 65.8 %); step 2: 10 of 20 (29.9 to 70.1 %)." in text
    assert "No episodes were filmed" in text and "no record of its versions" in text
    assert "graded" not in page.ids and "learning" in page.ids


def test_bare_metrics_are_enough(tmp_path: Path) -> None:
    CsvLogger(tmp_path / "metrics.csv").log({"step": 1, "loss": 0.5})
    text = _squeezed(_page(tmp_path))
    assert "1 RL step on this run" in text


def test_without_failures_there_is_no_reward_of_failures(run: Path) -> None:
    (run / "metrics.csv").unlink()
    logger = CsvLogger(run / "metrics.csv")
    logger.log(metrics_row(1) | {"n_success": 20, "success_rate": 1.0, "reward_failure_mean": 0.0})
    assert "Reward of failures" not in _page(run).text


def test_evaluations_that_cannot_be_compared_are_named(run: Path) -> None:
    other = evaluation(AFTER, "pick") | {"protocol": "paper"}
    other["episodes"] = other["episodes"][:49]
    (run / "eval_after.json").write_text(json.dumps(other))
    text = _squeezed(_page(run))
    assert "did not attempt the same starts" in text
    assert "differ in protocol (held-out before, paper after)" in text
    assert "Of 49 starts attempted both times" in text


def test_several_tasks_get_a_row_each_and_one_for_all(run: Path) -> None:
    for name, first, second in (("before", 10, 20), ("after", 40, 50)):
        values = evaluation(first, "open it")
        values["episodes"] += evaluation(second, "close it", "libero_object/1")["episodes"]
        (run / f"eval_{name}.json").write_text(json.dumps(values))
    text = _squeezed(_page(run))
    assert "From 30 % to 90 % on 2 tasks of libero_object" in text
    for row in ("open it", "close it", "All tasks"):
        assert row in text
    assert text.count("+60 points") == 3


def test_missing_and_foreign_files_are_not_embedded(run: Path) -> None:
    (run / "videos" / "after_libero_object-0_published-30.mp4").unlink()
    (run.parent / "secret.png").write_bytes(b"secret")
    graded = json.loads((run / "graded.json").read_text())
    graded["curves"][1]["thumbnails"] = ["../secret.png"]
    (run / "graded.json").write_text(json.dumps(graded))
    page = _page(run)
    assert "Listed but not found among the videos: after_libero_object-0_published-30.mp4" in page.text
    assert "After: not filmed" in page.text
    assert len(page.sources) == 1


def test_large_reports_warn(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "_LARGE", 1000)
    with pytest.warns(UserWarning, match="film fewer episodes"):
        write_report(run)


def test_bad_runs_get_a_sentence(tmp_path: Path, run: Path) -> None:
    with pytest.raises(SrpoError, match="no metrics"):
        write_report(tmp_path)
    (run / "config.json").write_text("{")
    with pytest.raises(SrpoError, match=r"config\.json is not valid JSON"):
        write_report(run)
    (run / "metrics.csv").write_text("step,loss\n")
    with pytest.raises(SrpoError, match="no rows yet"):
        write_report(run)


def test_the_page_says_how_failures_were_graded(run: Path) -> None:
    assert "by the distance of the episode so far" in write_report(run).read_text()
    graded = json.loads((run / "graded.json").read_text())
    (run / "graded.json").write_text(json.dumps({**graded, "clustering": "coverage"}))
    page = write_report(run).read_text()
    # Autoescaping may write the apostrophe as an entity.
    assert "by the share of the moments of this step" in page and "by the distance of the episode so far" not in page
