"""Embeddings by content: what tells clips apart, how many are kept, and what a damaged file does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srpo.types import SrpoError
from srpo.world_models.embedding_cache import EmbeddingCache, content_key


def row(value: float) -> np.ndarray:
    return np.full(3, value, np.float32)


def test_the_key_is_that_of_what_is_shown() -> None:
    frames = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)
    key = content_key("a", frames, np.array([0, 2, 4]))
    assert key == content_key("a", frames.copy(), np.array([0, 2, 4]))
    unseen = frames.copy()
    unseen[1] += 1
    assert key == content_key("a", unseen, np.array([0, 2, 4]))
    assert key == content_key("a", frames[::2], np.array([0, 1, 2]))  # the same three pictures
    changed = frames.copy()
    changed[4, 1, 1, 2] += 1
    others = [
        content_key("b", frames, np.array([0, 2, 4])),
        content_key("a", changed, np.array([0, 2, 4])),
        content_key("a", frames, np.array([0, 2, 2, 4])),
        content_key("a", frames, np.array([0, 0, 2, 4])),
        content_key("a", frames[::-1], np.array([0, 2, 4])),
        content_key("a", frames.reshape(5, 4, 1, 3), np.array([0, 2, 4])),
    ]
    assert len({key, *others}) == 7


def test_the_least_recently_used_is_dropped() -> None:
    cache = EmbeddingCache(2)
    cache.put("a", row(1))
    cache.put("b", row(2))
    assert cache.get("a") is not None
    cache.put("c", row(3))
    assert cache.get("b") is None and len(cache) == 2
    np.testing.assert_array_equal(cache.get("a"), row(1))
    assert (cache.hits, cache.misses) == (2, 1)


def test_what_is_returned_may_be_changed() -> None:
    cache = EmbeddingCache()
    cache.put("a", row(1))
    first = cache.get("a")
    assert first is not None
    first += 1
    np.testing.assert_array_equal(cache.get("a"), row(1))


def test_capacity_zero_keeps_nothing(tmp_path: Path) -> None:
    cache = EmbeddingCache(0, tmp_path)
    cache.put("a", row(1))
    assert cache.get("a") is None and not list(tmp_path.iterdir())
    with pytest.raises(SrpoError, match="keep 0"):
        EmbeddingCache(-1)


def test_on_disk_it_outlives_the_process_and_stays_bounded(tmp_path: Path) -> None:
    cache = EmbeddingCache(20, tmp_path / "cache")
    for i in range(50):
        cache.put(f"{i}", row(i))
    names = {p.stem for p in (tmp_path / "cache").iterdir()}
    assert 18 <= len(names) <= 20 and "49" in names and "0" not in names
    np.testing.assert_array_equal(EmbeddingCache(20, tmp_path / "cache").get("49"), row(49))


def test_a_damaged_file_counts_as_missing(tmp_path: Path) -> None:
    for name, content in (("cut", b"\x93NUMPY\x01"), ("empty", b""), ("text", b"hello")):
        (tmp_path / f"{name}.npy").write_bytes(content)
        assert EmbeddingCache(4, tmp_path).get(name) is None
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    np.save(tmp_path / "wide.npy", np.zeros((2, 2)))  # float64
    cache = EmbeddingCache(4, tmp_path)
    assert cache.get("objects") is None and cache.get("wide") is None
    cache.put("wide", row(1))
    np.testing.assert_array_equal(EmbeddingCache(4, tmp_path).get("wide"), row(1))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SrpoError, match=r"Cannot write the embedding cache .*file"):
        EmbeddingCache(4, tmp_path / "file").put("a", row(1))
