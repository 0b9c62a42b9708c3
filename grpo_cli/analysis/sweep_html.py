"""A sweep as a single HTML page: leaderboard, effects, curves and parallel coordinates.

All drawings are inline SVG, so the page needs no network and no scripts.
"""

from collections.abc import Callable, Sequence
from html import escape

from grpo_cli.analysis.sweep import Setting, SweepJob, effects, rank_settings, short_names, swept_keys

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin-top: 2em; }
table { border-collapse: collapse; } th, td { padding: .25em .8em; text-align: left; border-bottom: 1px solid #ddd; }
th { border-bottom: 1px solid #888; } .figure { text-align: right; font-variant-numeric: tabular-nums; }
.failed { color: #b00020; } .panels { display: flex; flex-wrap: wrap; gap: 12px; } figure { margin: 0; }
figcaption { font-size: 12px; } svg text { font: 11px system-ui, sans-serif; fill: #444; }
.axis { stroke: #999; fill: none; } .grid { stroke: #e4e4e4; } .others path { stroke: #ddd; fill: none; }
.curve { fill: none; stroke-width: 1.8; } .line { fill: none; stroke-width: 2; opacity: .75; }
.line:hover { stroke-width: 5; opacity: 1; }
"""
PANEL_WIDTH, PANEL_HEIGHT, MARGIN = 260, 150, 30
COORDINATES_WIDTH, COORDINATES_HEIGHT, TOP = 1100, 330, 40
# From the worst to the best result: three colours that colour-blind readers can distinguish.
SCALE = ((68, 1, 84), (33, 145, 140), (240, 170, 20))


def sweep_page(name: str, jobs: Sequence[SweepJob]) -> str:
    """The whole page as HTML."""
    settings = rank_settings(jobs)
    failed = [job for job in jobs if job.status != "finished"]
    parts = [
        f"<h1>{escape(name)}</h1>",
        f"<p>{len(jobs)} jobs, {len(jobs) - len(failed)} finished. Held-out accuracy is measured after the last "
        "step.</p>",
        _leaderboard(settings),
        _faults(failed),
        _effects(jobs),
        _curves(settings),
        _parallel_coordinates(settings, swept_keys(jobs)),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _leaderboard(settings: Sequence[Setting]) -> str:
    keys = swept_keys([job for setting in settings for job in setting.jobs])
    names = short_names(keys)
    has_seeds = any("seed" in job.swept for setting in settings for job in setting.jobs)
    figures = ["held-out", *(["std over seeds", "seeds"] if has_seeds else []), "greedy", "tokens", "seconds"]
    rows = []
    for setting in settings:
        over_seeds = [_figure(setting.spread, ".3f"), str(len(setting.finished))] if has_seeds else []
        results = [
            _figure(setting.mean, ".3f"),
            *over_seeds,
            _figure(setting.greedy, ".3f"),
            _figure(setting.tokens, ",.0f"),
            _figure(setting.seconds, ",.0f"),
        ]
        cells = [f"<td>{escape(setting.swept.get(key, ''))}</td>" for key in keys]
        cells += [f'<td class="figure">{value}</td>' for value in results]
        cells += [f"<td>{escape(', '.join(job.folder.name for job in setting.jobs))}</td>"]
        rows.append(cells)
    head = [*(f"<th>{escape(names[key])}</th>" for key in keys)]
    head += [f'<th class="figure">{figure}</th>' for figure in figures] + ["<th>run folder</th>"]
    return f"<h2>Leaderboard</h2>\n{_table(head, rows)}"


def _faults(failed: Sequence[SweepJob]) -> str:
    if not failed:
        return ""
    items = [
        f'<li class="failed">{escape(job.folder.name)} {job.status}{": " if job.error else ""}'
        f"{escape(job.error or '')}</li>"
        for job in failed
    ]
    return f"<h2>Not finished</h2>\n<ul>{''.join(items)}</ul>"


def _effects(jobs: Sequence[SweepJob]) -> str:
    names = short_names(swept_keys(jobs))
    rows = [
        [
            f"<td>{escape(names[effect.key])}</td>",
            f"<td>{escape(effect.value)}</td>",
            f'<td class="figure">{effect.mean:.3f}</td>',
            f'<td class="figure">{effect.num_jobs}</td>',
        ]
        for effect in effects(jobs)
    ]
    if not rows:
        return ""
    head = ["<th>parameter</th>", "<th>value</th>", '<th class="figure">mean held-out</th>', "<th>jobs</th>"]
    return f"<h2>Effect of each parameter, over all settings of the others</h2>\n{_table(head, rows)}"


def _curves(settings: Sequence[Setting]) -> str:
    """One panel per setting, with the same axes; the curves of all other settings are grey in the background."""
    points = [point for setting in settings for job in setting.jobs for point in job.curve]
    if not points:
        return ""
    last = max(step for step, _ in points) or 1
    top = max(value for _, value in points) or 1.0
    right, bottom = PANEL_WIDTH - 8, PANEL_HEIGHT - 20

    def path(curve: Sequence[tuple[int, float]]) -> str:
        places = [
            (MARGIN + step / last * (right - MARGIN), bottom - value / top * (bottom - 10)) for step, value in curve
        ]
        return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places)

    all_curves = "".join(f'<path d="{path(job.curve)}"/>' for setting in settings for job in setting.jobs if job.curve)
    frame = (
        f'<path class="axis" d="M{MARGIN},10V{bottom}H{right}"/>'
        f'<text x="{MARGIN - 4}" y="14" text-anchor="end">{top:.2f}</text>'
        f'<text x="{MARGIN - 4}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{right}" y="{bottom + 14}" text-anchor="end">step {last}</text>'
    )
    colour = _colours(settings)
    panels = []
    for setting in settings:
        curves = "".join(
            f'<path class="curve" stroke="{colour(setting)}" d="{path(job.curve)}"/>'
            f"{_points(path(job.curve), colour(setting))}"
            for job in setting.jobs
            if job.curve
        )
        panels.append(
            f'<figure><svg width="{PANEL_WIDTH}" height="{PANEL_HEIGHT}"><use href="#frame"/>{curves}</svg>'
            f"<figcaption>{escape(_title(setting))}</figcaption></figure>"
        )
    shared = f'<svg width="0" height="0"><defs><g id="frame"><g class="others">{all_curves}</g>{frame}</g></defs></svg>'
    return f'<h2>Held-out accuracy over training</h2>\n{shared}<div class="panels">{"".join(panels)}</div>'


def _points(path: str, colour: str) -> str:
    places = [place.split(",") for place in path[1:].split("L")]
    return "".join(f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>' for x, y in places)


def _parallel_coordinates(settings: Sequence[Setting], keys: Sequence[str]) -> str:
    """One line per setting, with an axis for each parameter, one for the tokens and one for the accuracy."""
    finished = [setting for setting in settings if setting.finished]
    if not finished or not keys:
        return ""
    names = short_names(keys)
    columns = [(names[key], [setting.swept.get(key, "") for setting in finished]) for key in keys]
    tokens = [setting.tokens for setting in finished if setting.tokens is not None]
    if len(tokens) == len(finished):
        columns.append(("tokens", [str(round(number)) for number in tokens]))
    columns.append(("held-out", [f"{setting.mean:.4f}" for setting in finished]))
    gap = (COORDINATES_WIDTH - 160) / (len(columns) - 1)
    bottom = COORDINATES_HEIGHT - 40
    axes, heights = [], []
    for number, (title, values) in enumerate(columns):
        x = 60 + number * gap
        is_parameter = number < len(keys)
        height, ticks = _axis(values, to_scale=not is_parameter)
        # Lines through the same value are drawn next to each other, not on top of each other.
        apart = min(3.0, 24 / len(finished)) if is_parameter else 0.0
        heights.append([(x, bottom - height[value] * (bottom - TOP) + apart * n) for n, value in enumerate(values)])
        axes.append(
            f'<path class="axis" d="M{x:.1f},{TOP}V{bottom}"/>'
            f'<text x="{x:.1f}" y="{TOP - 16}" text-anchor="middle" font-weight="bold">{escape(title)}</text>'
        )
        axes += [
            f'<text x="{x + 6:.1f}" y="{bottom - place * (bottom - TOP) + 4:.1f}">{escape(label)}</text>'
            for label, place in ticks
        ]
    colour = _colours(finished)
    # The best setting is drawn last, on top of the others.
    lines = [
        f'<path class="line" stroke="{colour(setting)}" d="M{"L".join(f"{x:.1f},{y:.1f}" for x, y in places)}">'
        f"<title>{escape(_title(setting))}</title></path>"
        for setting, places in zip(finished, zip(*heights, strict=True), strict=True)
    ][::-1]
    return (
        "<h2>Parallel coordinates</h2>\n"
        f'<svg width="{COORDINATES_WIDTH}" height="{COORDINATES_HEIGHT}">{"".join(lines)}{"".join(axes)}</svg>'
    )


def _axis(values: Sequence[str], *, to_scale: bool) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """The height of each value from 0 to 1, and the labels with their heights.

    With `to_scale` or more than 8 values, numbers are drawn to scale, and only the smallest and largest are labelled.
    Otherwise values are placed in order at equal distances.
    """
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        numbers = {}
    distinct = sorted(set(values), key=lambda value: (numbers.get(value, 0.0), value))
    if len(distinct) > 1 and numbers and (to_scale or len(distinct) > 8):
        low, high = numbers[distinct[0]], numbers[distinct[-1]]
        heights = {value: (number - low) / (high - low) for value, number in numbers.items()}
        return heights, [(distinct[0], 0.0), (distinct[-1], 1.0)]
    if len(distinct) == 1:
        return {distinct[0]: 0.5}, [(distinct[0], 0.5)]
    heights = {value: place / (len(distinct) - 1) for place, value in enumerate(distinct)}
    return heights, list(heights.items())


def _colours(settings: Sequence[Setting]) -> Callable[[Setting], str]:
    """A function that gives a setting's colour by its mean, relative to the means of all settings."""
    means = [setting.mean for setting in settings if setting.mean is not None] or [0.0]
    low, high = min(means), max(means)

    def colour(setting: Setting) -> str:
        if setting.mean is None:
            return "#b00020"
        place = 2 * (setting.mean - low) / (high - low or 1.0)
        first = min(int(place), 1)
        mixed = [round(a + (b - a) * (place - first)) for a, b in zip(SCALE[first], SCALE[first + 1], strict=True)]
        return f"rgb({mixed[0]},{mixed[1]},{mixed[2]})"

    return colour


def _title(setting: Setting) -> str:
    names = short_names(list(setting.swept))
    swept = ", ".join(f"{names[key]} {value}" for key, value in setting.swept.items()) or "all seeds"
    result = _figure(setting.mean, ".3f") or setting.jobs[0].status
    spread = f" ± {setting.spread:.3f}" if setting.spread is not None else ""
    return f"{swept}: {result}{spread}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(head)}</tr>\n{lines}</table>"


def _figure(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)
