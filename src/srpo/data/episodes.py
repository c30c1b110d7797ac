"""Episodes on disk for judging rewards: a folder with ``meta.json`` and one ``.npz`` file an episode (never pickle)."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from srpo.provenance import provenance, write_json
from srpo.types import Episode, InitialState, SrpoError, Task

FORMAT = "srpo-episodes-v1"
CAMERA = "agentview"


def every_nth(length: int, step: int) -> np.ndarray:
    """(K,) int64: every ``step``-th moment of ``length``, from the first, and always the last."""
    return np.unique(np.append(np.arange(0, length, step), length - 1))


@dataclass
class RecordedEpisode:
    """What is needed to grade an episode, and to say whether the grade is right.

    Attributes:
        task: what was attempted.
        initial_state: where it began.
        seed: of its sampled actions.
        policy: who acted, for example a checkpoint's name, ``"expert"`` or ``"random"``.
        success: the simulator's verdict.
        n_steps: control steps taken.
        frames: (T + 1, H, W, 3) uint8, third-person camera at the T decision points and at the end.
        true_progress: (T + 1,) float32 in [0, 1], see `srpo.evaluation.true_progress`; NaN where it is not known.
    """

    task: Task
    initial_state: InitialState
    seed: int
    policy: str
    success: bool
    n_steps: int
    frames: np.ndarray
    true_progress: np.ndarray

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if len(shape) != 4 or shape[-1] != 3 or self.frames.dtype != np.uint8 or not self.frames.size:
            raise SrpoError(
                f"An episode's frames have the shape {shape} and type {self.frames.dtype}: record (T, H, W, 3) uint8, "
                "one frame or more (EpisodeRequest.keep_frames)."
            )
        if self.true_progress.shape != shape[:1]:
            raise SrpoError(
                f"{shape[0]} frames and true progress of shape {self.true_progress.shape} do not fit: note one value a "
                "frame, NaN where it is not known."
            )

    @classmethod
    def of(cls, episode: Episode, policy: str) -> RecordedEpisode:
        """From a rollout with ``keep_frames``; SrpoError if it kept no frames of the third-person camera."""
        if CAMERA not in episode.frames:
            raise SrpoError("This episode kept no frames to record: request it with keep_frames=True.")
        frames, request = episode.frames[CAMERA], episode.request
        unknown = np.full(len(frames), np.nan, np.float32)
        return cls(
            task=request.task,
            initial_state=request.initial_state,
            seed=request.seed,
            policy=policy,
            success=bool(episode.success),
            n_steps=int(episode.n_steps),
            frames=frames,
            true_progress=np.asarray(episode.info.get("true_progress", unknown), np.float32),
        )


class EpisodeSet:
    """A folder of recorded episodes, numbered; written one by one, so that what is finished survives a kill.

    Frames are kept exactly: the first one, then the change from frame to frame, which deflates well as little of a
    scene moves.

    Args:
        folder: where.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def create(self, recipe: dict, seed: int) -> None:
        """Write ``meta.json``, or check that an existing one has the same recipe.

        Args:
            recipe: how the episodes are made, fit for JSON; what makes the same episodes again.
            seed: of the whole set.

        Raises:
            SrpoError: the folder holds episodes of another recipe or seed.
        """
        wanted = {"format": FORMAT, "seed": seed, "recipe": json.loads(json.dumps(recipe))}
        if (self.folder / "meta.json").is_file():
            found = self.meta()
            differing = [key for key, value in wanted.items() if found.get(key) != value]
            if differing:
                what = " and ".join(differing)
                raise SrpoError(f"{self.folder} already holds episodes with another {what}; choose another folder.")
            return
        write_json(self.folder / "meta.json", {**wanted, "provenance": provenance(seed)})

    def meta(self) -> dict:
        """The content of ``meta.json``.

        Raises:
            SrpoError: there is none, or it is damaged.
        """
        path = self.folder / "meta.json"
        if not path.is_file():
            raise SrpoError(f"{self.folder} holds no recorded episodes: give the folder that they were written to.")
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise SrpoError(f"{path} is damaged ({error}); restore it or record into another folder.") from error

    def numbers(self) -> list[int]:
        """Numbers of the episodes recorded so far, rising."""
        stems = (path.name.partition(".")[0] for path in self.folder.glob("*.npz") if ".partial" not in path.name)
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def add(self, number: int, episode: RecordedEpisode) -> None:
        """Store an episode under its number; one that is there already is replaced.

        Raises:
            SrpoError: the disk is full or not writable.
        """
        header = {
            "task": asdict(episode.task),
            "initial_state": asdict(episode.initial_state),
            "seed": episode.seed,
            "policy": episode.policy,
            "success": episode.success,
            "n_steps": episode.n_steps,
        }
        changes = np.diff(episode.frames, axis=0, prepend=np.zeros_like(episode.frames[:1]))  # modulo 256
        partial = self.folder / f"{number:05d}.partial.npz"
        try:
            np.savez_compressed(
                partial, header=np.array(json.dumps(header)), changes=changes, true_progress=episode.true_progress
            )
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise SrpoError(f"Cannot write {partial} ({error.strerror}); free disk space and run it again.") from error
        partial.replace(self._path(number))

    def read(self, number: int) -> RecordedEpisode:
        """The episode of that number.

        Raises:
            SrpoError: there is none, or its file is damaged.
        """
        path = self._path(number)
        if not path.is_file():
            raise SrpoError(f"{self.folder} has no episode {number}: it has {len(self.numbers())}, see numbers().")
        try:
            with np.load(path, allow_pickle=False) as stored:
                header = json.loads(str(stored["header"]))
                task, state = Task(**header.pop("task")), InitialState(**header.pop("initial_state"))
                frames = np.cumsum(stored["changes"], axis=0, dtype=np.uint8)
                return RecordedEpisode(task, state, **header, frames=frames, true_progress=stored["true_progress"])
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise SrpoError(f"{path} is damaged ({error}); delete it and record it again.") from error

    def __len__(self) -> int:
        return len(self.numbers())

    def __iter__(self) -> Iterator[RecordedEpisode]:
        self.meta()
        for number in self.numbers():
            yield self.read(number)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"
