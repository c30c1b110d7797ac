"""Recorded episodes: exact, small, resumable, and refused when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from srpo.data.episodes import EpisodeSet, RecordedEpisode, every_nth
from srpo.types import Episode, EpisodeRequest, InitialState, SrpoError, Task

TASK = Task("suite", 1, "lift", "lift the cup", 100)


def recorded(seed: int = 0, length: int = 6, success: bool = True) -> RecordedEpisode:
    """Noise that stands still, with a square that moves over it."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8), length, axis=0)
    for t in range(length):
        frames[t, t : t + 6, 8:14] = rng.integers(0, 256, 3)
    progress = np.linspace(0, 1, length).astype(np.float32)
    progress[-1] = np.nan if seed == 1 else progress[-1]
    return RecordedEpisode(TASK, InitialState("sampled", seed), seed, "random", success, 41, frames, progress)


def same(a: RecordedEpisode, b: RecordedEpisode) -> bool:
    plain = all(
        getattr(a, n) == getattr(b, n) for n in ("task", "initial_state", "seed", "policy", "success", "n_steps")
    )
    arrays = [(a.frames, b.frames), (a.true_progress, b.true_progress)]
    return plain and all(x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype != np.uint8) for x, y in arrays)


@pytest.fixture
def folder(tmp_path: Path) -> EpisodeSet:
    episodes = EpisodeSet(tmp_path / "episodes")
    episodes.create({"suite": "suite", "policies": ("random",)}, seed=3)
    return episodes


def test_round_trip(folder: EpisodeSet) -> None:
    stored = {7: recorded(0), 2: recorded(1, length=1), 11: recorded(2, success=False)}
    for number, episode in stored.items():
        folder.add(number, episode)
    again = EpisodeSet(str(folder.folder))
    assert again.numbers() == [2, 7, 11] and len(again) == 3
    assert all(same(again.read(n), e) for n, e in stored.items())
    assert [e.seed for e in again] == [1, 0, 2]
    assert again.meta()["provenance"]["seed"] == 3


def test_what_does_not_move_costs_little(folder: EpisodeSet) -> None:
    folder.add(0, recorded(length=1))
    folder.add(1, recorded(length=26))
    sizes = [(folder.folder / f"0000{i}.npz").stat().st_size for i in range(2)]
    assert sizes[1] < 3 * sizes[0]


def test_an_unfinished_file_is_no_episode(folder: EpisodeSet) -> None:
    folder.add(0, recorded())
    (folder.folder / "00001.partial.npz").write_bytes(b"PK")
    assert folder.numbers() == [0] and len(list(folder)) == 1
    folder.add(1, recorded(2))
    folder.add(1, recorded(4))  # replaced
    assert same(folder.read(1), recorded(4)) and len(folder) == 2


def test_the_same_recipe_continues_another_is_refused(folder: EpisodeSet) -> None:
    folder.create({"suite": "suite", "policies": ["random"]}, seed=3)
    with pytest.raises(SrpoError, match="another recipe; choose"):
        folder.create({"suite": "other"}, seed=3)
    with pytest.raises(SrpoError, match="another seed; choose"):
        folder.create({"suite": "suite", "policies": ["random"]}, seed=4)


def test_from_a_rollout() -> None:
    request = EpisodeRequest(TASK, InitialState("published", 4), group=0, seed=9, keep_frames=True)
    frames = recorded().frames
    episode = Episode(
        request, True, 12, {}, np.zeros((5, 14), np.int16), np.zeros((5, 14), np.float32), np.ones(5, np.int16),
        frames={"agentview": frames},
    )  # fmt: skip
    made = RecordedEpisode.of(episode, "half-trained")
    assert (made.seed, made.policy, made.success, made.n_steps) == (9, "half-trained", True, 12)
    assert np.isnan(made.true_progress).all() and made.true_progress.dtype == np.float32
    episode.info["true_progress"] = np.linspace(0, 1, 6, dtype=np.float32)
    np.testing.assert_array_equal(RecordedEpisode.of(episode, "x").true_progress, episode.info["true_progress"])
    episode.frames = {}
    with pytest.raises(SrpoError, match="keep_frames=True"):
        RecordedEpisode.of(episode, "x")


def test_arrays_that_do_not_fit_are_refused() -> None:
    good = recorded()
    for change in ({"frames": good.frames.astype(float)}, {"frames": good.frames[:0]}, {"true_progress": np.zeros(2)}):
        with pytest.raises(SrpoError, match=r"record \(T, H, W, 3\)|one value a frame"):
            RecordedEpisode(**vars(good) | change)


def test_damage_is_named(folder: EpisodeSet, tmp_path: Path) -> None:
    folder.add(0, recorded())
    path = folder.folder / "00000.npz"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(SrpoError, match=r"00000.npz is damaged"):
        folder.read(0)
    np.savez(path, header=np.array(json.dumps({"task": {}})))
    with pytest.raises(SrpoError, match=r"00000.npz is damaged"):
        list(folder)
    with pytest.raises(SrpoError, match="has no episode 5"):
        folder.read(5)
    (folder.folder / "meta.json").write_text("{")
    with pytest.raises(SrpoError, match=r"meta.json is damaged"):
        folder.meta()
    with pytest.raises(SrpoError, match="holds no recorded episodes"):
        list(EpisodeSet(tmp_path / "nowhere"))


def test_every_nth_ends_with_the_last():
    assert every_nth(9, 4).tolist() == [0, 4, 8]
    assert every_nth(10, 4).tolist() == [0, 4, 8, 9]
    assert every_nth(1, 8).tolist() == [0]
