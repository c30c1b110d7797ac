"""``srpo reward`` from end to end, on episodes and on videos made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from srpo.cli import main
from srpo.data.episodes import EpisodeSet, RecordedEpisode
from srpo.report.video import write_mp4
from srpo.types import InitialState, Task

SIZE = 64


def clip(end: float, seed: int, length: int = 6) -> np.ndarray:
    """A red square that moves from left to ``end`` (0 to 1 of the width) over a noisy ground."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(rng.integers(90, 110, (1, SIZE, SIZE, 3), dtype=np.uint8), length, 0)
    for t, frame in enumerate(frames):
        x = int(end * (SIZE - 16) * t / (length - 1))
        frame[24:40, x : x + 16] = (220, 30, 30)
    return frames


ENDS = [(1.0, True), (0.95, True), (1.0, True), (0.8, False), (0.5, False), (0.2, False), (0.0, False)]


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    recorded = EpisodeSet(folder)
    recorded.create({"made": "here"}, 0)
    for number, (end, success) in enumerate(ENDS):
        truth = np.linspace(0, end, 6, dtype=np.float32)
        task = Task("fake", 0, "go", "go right", 48)
        recorded.add(number, RecordedEpisode(task, InitialState("sampled", number), number, "test", success,
                                             48, clip(end, number), truth))  # fmt: skip
    return folder


def test_bench(episodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["reward", "bench", str(episodes), "--world-models", "pixels,length", "--resamples", "50"]
    assert main([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "7 episodes of 1 tasks, 3 successes" in said and "| pixels |" in said and "| length |" in said
    result = json.loads((out / "reward_bench.json").read_text())
    assert result["measures"]["pixels"]["rank"]["value"] == pytest.approx(1.0)
    assert result["measures"]["length"]["auc"]["value"] == 0.5  # all episodes are equally long
    for name in ("progress_pixels.png", "progress_length.png", "distances.png"):
        assert Image.open(out / name).size[0] > 300


def test_score_of_recorded_episodes(episodes: Path, tmp_path: Path) -> None:
    assert main(["reward", "score", str(episodes), "--world-model", "pixels", "--out", str(tmp_path)]) == 0
    table = pq.read_table(tmp_path / "scores.parquet").to_pydict()
    assert table["reward"][:3] == [1.0, 1.0, 1.0]
    assert table["reward"][3] > table["reward"][4] > table["reward"][5] > table["reward"][6] > 0
    assert [len(p) for p in table["progress"]] == [6] * 7
    assert table["progress"][0][-1] == 1.0 and table["progress"][0] == sorted(table["progress"][0])
    assert Image.open(tmp_path / "progress.png").size[0] > 300


def test_score_of_videos(tmp_path: Path) -> None:
    lines = ["video,task,success"]
    for number, (end, success) in enumerate(ENDS):
        write_mp4(tmp_path / f"{number}.mp4", clip(end, number, length=17))
        lines.append(f"{number}.mp4,go right,{int(success)}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    command = ["reward", "score", str(tmp_path / "list.csv"), "--world-model", "pixels", "--every", "5"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    table = pq.read_table(tmp_path / "out/scores.parquet").to_pydict()
    assert table["episode"][3] == "3.mp4" and [len(p) for p in table["progress"]] == [5] * 7  # 0, 5, 10, 15 and 16
    assert table["reward"][3] > table["reward"][6]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no"),
        ("", "lists no episodes"),
        ("video,task,success\na.mp4,,1\n", "line 2 lacks task"),
        ("video,task,success\na.mp4,go,yes\n", "success 'yes'"),
        ("video,task,success\na.mp4,go,1\n", "no video"),
    ],
)
def test_bad_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str) -> None:
    path = tmp_path / "list.csv"
    if content is not None:
        path.write_text(content)
    assert main(["reward", "score", str(path), "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_unknown_world_model(episodes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", "bench", str(episodes), "--world-models", "imagination"]) == 2
    assert "No world model named 'imagination'" in capsys.readouterr().err


def test_bench_and_score_by_the_papers_distance(episodes: Path, tmp_path: Path) -> None:
    papers = ("--clustering", "dbscan", "--out", str(tmp_path))
    assert main(["reward", "bench", str(episodes), "--world-models", "pixels", "--resamples", "20", *papers]) == 0
    result = json.loads((tmp_path / "reward_bench.json").read_text())
    assert result["measures"]["pixels"]["rank"]["value"] == pytest.approx(1.0)
    assert main(["reward", "score", str(episodes), "--world-model", "pixels", *papers]) == 0
    table = pq.read_table(tmp_path / "scores.parquet").to_pydict()
    assert table["reward"][3] > table["reward"][4] > table["reward"][6] > 0
    assert [len(p) for p in table["progress"]] == [6] * 7 and table["progress"][0][-1] > 0.8
