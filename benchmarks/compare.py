"""Whether success rates differ by more than chance: the first is compared with each of the others.

    python benchmarks/compare.py results/libero_spatial/easy/grpo_2/eval_after.json \
        results/libero_spatial/easy/srpo_2/eval_after.json results/ablations/libero_spatial/easy/*/eval_after.json
    python benchmarks/compare.py 95/240 116/240

Each argument is a file that ``srpo eval`` wrote, or successes/episodes. Printed as a Markdown table: successes with
Wilson's 95 % interval; the difference to the first with Newcombe's 95 % interval (1998, Statistics in Medicine 17,
method 10: Wilson's limits of the two); and the two-sided p of Fisher's exact test. Both take attempts for independent.
They speak of these two policies: what another seed of training would give they cannot know.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path

from scipy.stats import fisher_exact

from srpo.evaluation.intervals import wilson

Count = tuple[int, int]


def counted(argument: str) -> Count:
    """Successes and episodes of "116/240", or of a file with an "overall" of ``srpo eval``."""
    try:
        if number := re.fullmatch(r"(\d+)/(\d+)", argument):
            successes, episodes = int(number[1]), int(number[2])
        else:
            overall = json.loads(Path(argument).read_text())["overall"]
            successes, episodes = int(overall["successes"]), int(overall["episodes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{argument} is neither like 116/240 nor a file that srpo eval wrote: {error!r}") from error
    if not 0 <= successes <= episodes or episodes == 0:
        raise SystemExit(f"{argument} counts {successes} successes of {episodes} episodes: nothing to compare.")
    return successes, episodes


def newcombe(first: Count, second: Count) -> tuple[float, float]:
    """95 % interval of the second's success rate minus the first's."""
    (a, n), (b, m) = first, second
    p, q = a / n, b / m
    (low_p, high_p), (low_q, high_q) = wilson(a, n), wilson(b, m)
    return (
        q - p - math.hypot(q - low_q, high_p - p),
        q - p + math.hypot(high_q - q, p - low_p),
    )


def table(names: list[str], counts: list[Count]) -> str:
    """Markdown, one line a count; the first is what the others are compared with."""
    first = counts[0]
    rows = [["", "successes", "95 %", "difference", "95 %", "p"], ["---"] * 6]
    for i, (name, count) in enumerate(zip(names, counts, strict=True)):
        low, high = wilson(*count)
        against = ["", "", ""]
        if i:
            below, above = newcombe(first, count)
            p = fisher_exact([[won, of - won] for won, of in (first, count)]).pvalue
            difference = count[0] / count[1] - first[0] / first[1]
            against = [f"{difference:+.1%}", f"{below:+.1%} to {above:+.1%}", f"{p:.2g}"]
        rows.append([name, f"{count[0]}/{count[1]}", f"{low:.0%} to {high:.0%}", *against])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("of", nargs="+", metavar="FILE|S/N")
    names = parser.parse_args().of
    print(table(names, [counted(name) for name in names]))


if __name__ == "__main__":
    main()
