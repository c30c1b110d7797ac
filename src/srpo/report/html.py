"""One HTML file that tells what a run did: no network, no scripts, pictures and videos inside."""

from __future__ import annotations

import base64
import warnings
from pathlib import Path
from typing import Any

from markupsafe import Markup

from srpo.report import sections
from srpo.report.page import PAGE, STYLE
from srpo.report.reading import reading
from srpo.report.run import Rate, Run, key, load_run, percent

_LARGE = 25e6
_TYPES = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def write_report(run: str | Path) -> Path:
    """Write ``report.html`` into a run folder, from what the folder holds; missing parts are left out.

    Args:
        run: a run folder with at least ``metrics.csv``.

    Returns:
        Path of the report. A report above 25 MB raises a warning (many or long videos).

    Raises:
        SrpoError: there are no metrics, or a file cannot be read.
    """
    from jinja2 import Environment

    record = load_run(run)
    template = Environment(autoescape=True, trim_blocks=False).from_string(PAGE)
    text = template.render(style=Markup(STYLE), **_content(record))
    path = record.folder / "report.html"
    partial = path.with_name("report.html.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    if path.stat().st_size > _LARGE:
        warnings.warn(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB; film fewer episodes for a smaller one.",
            stacklevel=2,
        )
    return path


def _content(run: Run) -> dict[str, Any]:
    videos, missing = _pairs(run)
    return {
        "title": Markup(headline(run)).striptags(),
        "over": _over(run),
        "headline": headline(run),
        "lead": _lead(run),
        "notes": [*_notes(run), *missing],
        "tiles": sections.tiles(run),
        "learning": sections.learning(run),
        "tasks": sections.tasks(run),
        "tasks_text": sections.tasks_text(run),
        "pairs": videos,
        "videos_text": _videos_text(videos),
        "graded": sections.graded(run, lambda name: _embedded(run.folder, name)),
        "multiples": sections.multiples(run),
        **sections.times(run),
        "reading": reading(run),
        **sections.origin(run),
        "footer": f"Written by srpo from {run.folder.resolve().name}; everything is in this one file.",
    }


def headline(run: Run) -> Markup:
    """``From 46 % to 95 % on <instruction>``, as markup with the instruction escaped."""
    subject = _subject(run)
    if run.before and run.after:
        first, last = percent(run.before.overall.share), percent(run.after.overall.share)
        template = 'From <span class="before">{}</span> to <span class="after">{}</span> on {}'
        return Markup(template).format(first, last, subject)
    if run.after:
        return Markup('<span class="after">{}</span> on {}').format(percent(run.after.overall.share), subject)
    curve = run.training_curve()
    if len(curve) > 1:
        template = 'From <span class="before">{}</span> to <span class="after">{}</span> in training rollouts on {}'
        return Markup(template).format(percent(curve[0][1].share), percent(curve[-1][1].share), subject)
    return Markup("{} RL step{} on {}").format(run.last_step, "" if run.last_step == 1 else "s", subject)


def _subject(run: Run) -> str:
    if len(run.instructions) == 1:
        return f"“{next(iter(run.instructions.values()))}”"
    suite = str(run.training.get("suite") or _suite(run) or "")
    if run.instructions:
        return f"{len(run.instructions)} tasks of {suite}" if suite else f"{len(run.instructions)} tasks"
    return suite or "this run"


def _suite(run: Run) -> Any:
    evaluation = run.after or run.before
    return evaluation.values.get("suite") if evaluation else None


def _over(run: Run) -> str:
    started = str(run.provenance.get("started") or "").replace("T", " ")[:16]
    parts = [
        "SRPO run",
        str(run.training.get("suite") or _suite(run) or ""),
        run.folder.resolve().name,
        started,
    ]
    return " · ".join(part for part in parts if part)


def _lead(run: Run) -> Markup:
    if not run.before or not run.after:
        first, last = run.training_curve()[:1], run.training_curve()[-1:]
        text = "; ".join(f"step {step}: {_interval(rate)}" for step, rate in dict([*first, *last]).items())
        return Markup("Success of the training rollouts at {}.").format(text) if text else Markup("")
    where = {
        "held-out": "On initial states that training never used",
        "paper": "On the benchmark's published initial states, which training used too",
    }.get(run.protocol, "In evaluation")
    text = Markup("{}: <strong>{}</strong> before, <strong>{}</strong> after.").format(
        where, _interval(run.before.overall), _interval(run.after.overall)
    )
    both, gained, lost = run.paired()
    if both:
        text += Markup(
            " Of {} starts attempted both times, {} turned from failure to success and {} the other way."
        ).format(both, gained, lost or "none")
    return text


def _interval(rate: Rate) -> str:
    return f"{rate.successes} of {rate.episodes} ({sections.interval(rate)})"


def _notes(run: Run) -> list[str]:
    notes = []
    if run.planned_steps and run.last_step < run.planned_steps:
        notes.append(f"The run stopped after step {run.last_step} of {run.planned_steps}: this is what there is.")
    absent = [name for name, value in (("before", run.before), ("after", run.after)) if value is None]
    if absent:
        notes.append(f"There is no evaluation {' and none '.join(absent)} training, so those numbers are left out.")
    if run.before and run.after:
        if run.before.outcomes.keys() != run.after.outcomes.keys():
            notes.append("The evaluations before and after did not attempt the same starts; compare them with care.")
        for name in ("protocol", "decoding"):
            first, last = run.before.values.get(name), run.after.values.get(name)
            if first != last:
                notes.append(f"The evaluations differ in {name} ({first} before, {last} after): compare with care.")
    return notes


def _pairs(run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """Videos by task and initial state, and notes on files that are not there."""
    pairs: dict[Any, dict[str, Any]] = {}
    missing = []
    for entry in run.videos:
        source = _embedded(run.folder, f"videos/{entry['file']}")
        if source is None:
            missing.append(entry["file"])
            continue
        task, kind, index = key(entry)
        instruction = run.instructions.get(task, task)
        pair = pairs.setdefault(
            (task, kind, index),
            {"caption": f"{instruction}, {kind} start {index}", "before": None, "after": None},
        )
        outcome = "success" if entry["success"] else "failure"
        pair[entry["phase"]] = {
            "src": source,
            "success": bool(entry["success"]),
            "n_steps": entry["n_steps"],
            "alt": f"{instruction}, {entry['phase']} training: {outcome}",
        }
    order = {task: i for i, task in enumerate(run.instructions)}
    found = [pairs[k] for k in sorted(pairs, key=lambda k: (order.get(k[0], len(order)), k))]
    return found, [f"Listed but not found among the videos: {', '.join(missing)}."] if missing else []


def _videos_text(pairs: list[dict[str, Any]]) -> str:
    if not pairs:
        return "No episodes were filmed in this run."
    return (
        "Each pair begins from the same initial state. The camera took one picture per decision; "
        "playback is faster than the robot was."
    )


def _embedded(folder: Path, name: str) -> str | None:
    """A file below the run folder as a data URI; None if it is not there."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or path.suffix.lower() not in _TYPES or not path.is_file():
        return None
    return f"data:{_TYPES[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
