"""Code in the documentation runs, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"


def test_the_example_of_another_training_loop() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "rewards.md").read_text(), re.S)
    scope: dict = {}
    exec(code, scope)
    rng = np.random.default_rng(0)
    start, end = (rng.integers(0, 256, (1, 32, 32, 3)).astype(float) for _ in range(2))

    def video(share: float) -> np.ndarray:  # from one picture towards another
        mix = np.linspace(0, share, 6)[:, None, None, None]
        return ((1 - mix) * start + mix * end).astype(np.uint8)

    videos = [video(1.0), video(0.98), video(0.9), video(0.5), video(0.1)]
    reward = scope["rewards_of"](videos, np.array([1, 1, 0, 0, 0], bool), ["a"] * 5)
    assert reward[0] == reward[1] == 1 and 0.8 > reward[2] > reward[3] > reward[4] > 0
    later = scope["rewards_of"](videos[2:], np.zeros(3, bool), ["a"] * 3)  # no success: the replay's
    assert later[0] > later[1] > later[2] > 0
    unknown = scope["rewards_of"](videos[2:], np.zeros(3, bool), ["b"] * 3)
    np.testing.assert_array_equal(unknown, 0)


def anchors(file: Path) -> set[str]:
    """The names that GitHub gives to a file's headings."""
    titles = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("file", [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", file.read_text())
    for link in (link for link in links if "://" not in link):
        name, _, anchor = link.partition("#")
        target = file.parent / name if name else file
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
