"""Demonstrations on disk: a folder with ``meta.json`` and one ``.npz`` file an episode (never pickle)."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from srpo.provenance import provenance, write_json
from srpo.types import InitialState, SrpoError, Task

FORMAT = "srpo-demonstrations-v1"


@dataclass
class Demonstration:
    """One demonstrated episode of T control steps.

    Attributes:
        task: what was done.
        initial_state: where it began.
        images: camera -> (T, H, W, 3) uint8, before each action.
        states: (T, 8) float32 proprioception before each action.
        actions: (T, 7) float32 in environment units.
    """

    task: Task
    initial_state: InitialState
    images: dict[str, np.ndarray]
    states: np.ndarray
    actions: np.ndarray


class DemonstrationSet:
    """A folder of demonstrations, written episode by episode; what is finished survives a kill.

    Args:
        folder: where.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def create(self, cameras: tuple[str, ...], image_size: int, seed: int) -> None:
        """Write ``meta.json``, or check that an existing one has the same cameras and image size."""
        wanted = {"format": FORMAT, "cameras": list(cameras), "image_size": image_size, "fps": 20}
        path = self.folder / "meta.json"
        if path.is_file():
            found = self.meta()
            for key, value in wanted.items():
                if found.get(key) != value:
                    raise SrpoError(
                        f"{self.folder} already holds demonstrations with {key}={found.get(key)}, not {value}; "
                        "give another --out."
                    )
            return
        write_json(path, {**wanted, "provenance": provenance(seed)})

    def meta(self) -> dict:
        """The content of ``meta.json``."""
        path = self.folder / "meta.json"
        if not path.is_file():
            raise SrpoError(f"{self.folder} holds no demonstrations: run srpo collect --out {self.folder} first.")
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise SrpoError(f"{path} is damaged ({error}); restore it or collect into another folder.") from error

    def attempts(self, task: Task) -> dict[int, bool]:
        """Attempt number -> whether it succeeded, for all attempts made so far."""
        done = {}
        for path in self.folder.glob(f"{_stem(task)}_*"):
            number, _, ending = path.name[len(_stem(task)) + 1 :].partition(".")
            if ending in ("npz", "failed"):
                done[int(number)] = ending == "npz"
        return done

    def add(self, number: int, task: Task, demonstration: Demonstration | None) -> None:
        """Store attempt ``number``; None: it failed, which is only noted."""
        path = self.folder / f"{_stem(task)}_{number:05d}"
        if demonstration is None:
            path.with_name(path.name + ".failed").touch()
            return
        header = {"task": asdict(task), "initial_state": asdict(demonstration.initial_state)}
        arrays = {f"images_{camera}": images for camera, images in demonstration.images.items()}
        partial = path.with_name(path.name + ".partial.npz")
        try:
            np.savez_compressed(
                partial,
                header=np.array(json.dumps(header)),
                states=demonstration.states,
                actions=demonstration.actions,
                **arrays,  # type: ignore[arg-type]
            )
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise SrpoError(f"Cannot write {path}.npz ({error.strerror}); free disk space and run it again.") from error
        partial.rename(path.with_name(path.name + ".npz"))

    def __iter__(self) -> Iterator[Demonstration]:
        self.meta()
        for path in sorted(self.folder.glob("*.npz")):
            if not path.name.endswith(".partial.npz"):
                yield _read(path)


def _stem(task: Task) -> str:
    return task.id.replace("/", "-")


def _read(path: Path) -> Demonstration:
    try:
        with np.load(path, allow_pickle=False) as stored:
            header = json.loads(str(stored["header"]))
            images = {k[len("images_") :]: stored[k] for k in stored.files if k.startswith("images_")}
            return Demonstration(
                Task(**header["task"]),
                InitialState(**header["initial_state"]),
                images,
                stored["states"],
                stored["actions"],
            )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise SrpoError(f"{path} is damaged ({error}); delete it and run srpo collect again.") from error
