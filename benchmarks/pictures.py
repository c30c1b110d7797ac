"""The pictures of the README, from the folder of a finished run.

    python benchmarks/pictures.py runs/demo/srpo --out docs/images

Writes before_after.gif (the first filmed start that failed before and succeeded after SRPO) and learning_curve.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from srpo.report.plots import learning_curve_png
from srpo.report.video import read_mp4, side_by_side, write_gif


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    index = json.loads((options.run / "videos/index.json").read_text())
    films = {(f["phase"], f["task"], str(f["initial_state"])): f for f in index}
    pairs = [(f, films["after", task, state]) for (phase, task, state), f in films.items() if phase == "before"]
    turned = [(b, a) for b, a in pairs if a["success"] and not b["success"]]
    before, after = (turned or pairs)[0]
    clips = [read_mp4(options.run / "videos" / f["file"]) for f in (before, after)]
    clips = [clip[:, -clip.shape[2] :] for clip in clips]  # the picture is square, above it stands a caption
    names = [f"{w}: {'success' if f['success'] else 'failure'}" for w, f in (("before", before), ("after", after))]
    write_gif(options.out / "before_after.gif", side_by_side(clips[0], clips[1], (names[0], names[1])), fps=6)
    learning_curve_png(options.run, options.out / "learning_curve.png")
    print(f"{after['task']}, {after['initial_state']}: {', '.join(names)}")


if __name__ == "__main__":
    main()
