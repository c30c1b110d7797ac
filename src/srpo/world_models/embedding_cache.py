"""Embeddings that were computed before, found by the content of the clip; bounded, in memory and on disk."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np

from srpo.types import SrpoError


def content_key(encoder: str, frames: np.ndarray, chosen: np.ndarray) -> str:
    """Name of a clip's embedding: a 160-bit BLAKE2b hash of all that it depends on.

    Args:
        encoder: names the encoder with its weights and settings.
        frames: (T, H, W, 3) uint8.
        chosen: (F,) int64, which of them are shown.
    """
    shown, order = np.unique(chosen, return_inverse=True)
    digest = hashlib.blake2b(encoder.encode(), digest_size=20)
    digest.update(repr(frames.shape[1:]).encode())
    digest.update(order.astype("<i8").tobytes())
    digest.update(frames[shown].tobytes())
    return digest.hexdigest()


class EmbeddingCache:
    """Key -> embedding, the least recently used dropped first.

    Args:
        capacity: most embeddings kept in memory (0: none), and as many on disk.
        folder: also keep them here, one ``.npy`` file each; None: in memory only. Several processes may share it.
    """

    def __init__(self, capacity: int = 1024, folder: str | Path | None = None) -> None:
        if capacity < 0:
            raise SrpoError(f"A cache of {capacity} embeddings is impossible: keep 0 (none) or more.")
        self.capacity, self.folder = capacity, Path(folder) if folder is not None else None
        self.hits = self.misses = 0
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> np.ndarray | None:
        """What was kept, float32, or None; a file that cannot be read counts as not there and is written again."""
        row = self._kept.get(key)
        if row is None and self.folder is not None:
            row = self._read(self.folder / f"{key}.npy")
        if row is None:
            self.misses += 1
            return None
        self.hits += 1
        self._keep(key, row)
        return row.copy()

    def put(self, key: str, embedding: np.ndarray) -> None:
        """Keep an embedding.

        Raises:
            SrpoError: the folder cannot be written.
        """
        row = np.array(embedding, dtype=np.float32)
        self._keep(key, row)
        if self.folder is None or not self.capacity:
            return
        path = self.folder / f"{key}.npy"
        partial = self.folder / f".{key}.{os.getpid()}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.save(file, row, allow_pickle=False)
            partial.replace(path)
            self._bound()
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise SrpoError(
                f"Cannot write the embedding cache {self.folder} ({error.strerror}); free space or cache elsewhere."
            ) from error

    def _keep(self, key: str, row: np.ndarray) -> None:
        self._kept[key] = row
        self._kept.move_to_end(key)
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)

    def _read(self, path: Path) -> np.ndarray | None:
        try:
            row = np.load(path, allow_pickle=False)
            path.touch()
        except (OSError, ValueError, EOFError):
            return None
        return row if row.ndim and row.dtype == np.float32 else None

    def _bound(self) -> None:
        """Drop the oldest files, a tenth at a time, so that the folder is not listed in order for every new one."""
        assert self.folder is not None
        files = list(self.folder.glob("*.npy"))
        if len(files) > self.capacity:
            ages = sorted((f.stat().st_mtime_ns, f) for f in files if f.exists())
            for _, file in ages[: len(files) - self.capacity + self.capacity // 10]:
                file.unlink(missing_ok=True)
