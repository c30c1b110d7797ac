"""Whether success rates differ by more than chance: the first is compared with each of the others.

    python benchmarks/compare.py results/libero_spatial/easy/grpo_2/eval_after.json \
        results/libero_spatial/easy/srpo_2/eval_after.json results/ablations/libero_spatial/easy/*/eval_after.json
    python benchmarks/compare.py 95/240 116/240

Each argument is a file that ``srpo eval`` wrote, or successes/episodes. Printed as a Markdown table: successes with
Wilson's 95 % interval; the difference to the first with Newcombe's 95 % interval (1998, Statistics in Medicine 17,
method 10: Wilson's limits of the two); and the two-sided p of Fisher's exact test. Both take attempts for independent.
Where both files have the outcomes of attempts at the same initial states, also the two-sided p of McNemar's exact test:
of the attempts that one solves and the other does not, how unevenly the two share them. All of these speak of two
policies: what another seed of training would give they cannot know.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from scipy.stats import binomtest, fisher_exact

from srpo.evaluation.intervals import wilson
from suite_results import outcomes


@dataclass(frozen=True)
class Rate:
    """A success rate.

    ``attempts``: by protocol and task, "1" or "0" an attempt; empty where they are not known, and of states that a run
    practised, which are another run's only by chance.
    """

    successes: int
    episodes: int
    attempts: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def value(self) -> float:
        return self.successes / self.episodes


def read(argument: str) -> Rate:
    """Of "116/240", or of a file of ``srpo eval``."""
    try:
        if number := re.fullmatch(r"(\d+)/(\d+)", argument):
            rate = Rate(int(number[1]), int(number[2]))
        else:
            result = json.loads(Path(argument).read_text())
            overall, protocol = result["overall"], result["protocol"]
            attempts = {} if protocol == "practised" else {(protocol, k): won for k, won in outcomes(result).items()}
            rate = Rate(int(overall["successes"]), int(overall["episodes"]), attempts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{argument} is neither like 116/240 nor a file that srpo eval wrote: {error!r}") from error
    if not 0 <= rate.successes <= rate.episodes or rate.episodes == 0:
        raise SystemExit(f"{argument} counts {rate.successes} of {rate.episodes} episodes: nothing to compare.")
    return rate


def newcombe(first: Rate, second: Rate) -> tuple[float, float]:
    """95 % interval of the second's success rate minus the first's."""
    low, high = wilson(first.successes, first.episodes)
    low_2, high_2 = wilson(second.successes, second.episodes)
    difference = second.value - first.value
    return (
        difference - math.hypot(second.value - low_2, high - first.value),
        difference + math.hypot(high_2 - second.value, first.value - low),
    )


def mcnemar(first: Rate, second: Rate) -> str:
    """The p of McNemar's exact test; empty where the attempts are not known, or not at the same states (those of a
    protocol and task are the same for every policy)."""
    lengths = [{place: len(won) for place, won in rate.attempts.items()} for rate in (first, second)]
    if lengths[0] != lengths[1] or not lengths[0]:
        return ""
    pairs = [pair for place, won in first.attempts.items() for pair in zip(won, second.attempts[place], strict=True)]
    only_first, only_second = pairs.count(("1", "0")), pairs.count(("0", "1"))
    return f"{binomtest(only_first, only_first + only_second).pvalue:.2g}" if only_first + only_second else "1"


def table(names: list[str], rates: list[Rate]) -> str:
    """Markdown, one line a rate; the first is what the others are compared with."""
    first = rates[0]
    rows = [["", "successes", "95 %", "difference", "95 %", "p, Fisher", "p, McNemar"], ["---"] * 7]
    for i, (name, rate) in enumerate(zip(names, rates, strict=True)):
        low, high = wilson(rate.successes, rate.episodes)
        against = [""] * 4
        if i:
            below, above = newcombe(first, rate)
            p = fisher_exact([[r.successes, r.episodes - r.successes] for r in (first, rate)]).pvalue
            against = [f"{rate.value - first.value:+.1%}", f"{below:+.1%} to {above:+.1%}", f"{p:.2g}"]
            against.append(mcnemar(first, rate))
        rows.append([name, f"{rate.successes}/{rate.episodes}", f"{low:.0%} to {high:.0%}", *against])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("of", nargs="+", metavar="FILE|S/N")
    names = parser.parse_args().of
    print(table(names, [read(name) for name in names]))


if __name__ == "__main__":
    main()
