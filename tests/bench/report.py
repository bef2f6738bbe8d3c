"""The benchmark's figures as Markdown tables, and docs/benchmarks.md around them."""

import os
import platform
import re
import statistics
import time

import measure

FIRST_MARK = "<!-- figures: written by tests/bench/bench.py --write -->"
LAST_MARK = "<!-- end of figures -->"


# What Weir must reach: the ratio to HAProxy of processor time per message, and KiB per idle session.
RATIO_GOALS = {"connect": 1.0, "kept": 0.9, "large": 0.7}
IDLE_GOAL = 1.0


def table(head, rows, align):
    """A Markdown table whose columns also line up in a terminal; `align` has one of < and > for each column."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row):
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths)]
        return "| " + " | ".join(cells) + " |"

    rule = ["-" * (width + 1) + ("-" if side == "<" else ":") for side, width in zip(align, widths)]
    return [line(head), "|" + "|".join(rule) + "|", *map(line, rows)]


def ratio_text(ratios):
    if not ratios:
        return "–"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def tables(bench, cells):
    lines = []
    for work, title, _ in measure.WORKS:
        if work not in bench.options.works:
            continue
        rows = []
        for proxy, _ in bench.proxies:
            cell = cells[proxy.key, work]
            cpu = "–" if cell["cpu"] is None else f"{cell['cpu']:.1f}"
            rows.append([proxy.title, f"{cell['rate']:.0f}", cpu, ratio_text(cell["ratios"])])
        lines += [f"**{title}**", ""]
        lines += table(["", "messages/s", "CPU µs per message", "ratio to HAProxy (range)"], rows, "<>>>") + [""]
    if bench.idle:
        rows = [[proxy.title, f"{bench.idle[proxy.key]:.2f}"] for proxy, _ in bench.proxies if proxy.key in bench.idle]
        lines += [f"**idle sessions after EHLO** ({bench.options.sessions} at a time)", ""]
        lines += table(["", "KiB of user memory per session"], rows, "<>") + [""]
    lines += call_lines(bench)
    if bench.scan:
        lines += ["**end-of-data scan**", "", "```", *bench.scan, "```", ""]
    return lines + goal_lines(bench, cells)


def goal_lines(bench, cells):
    rows = []
    for work, title, _ in measure.WORKS:
        ratios = cells.get(("weir", work), {}).get("ratios")
        if ratios:
            rows.append(goal_row(f"CPU, Weir / HAProxy, {title}", statistics.median(ratios), RATIO_GOALS[work]))
    if "weir" in bench.idle:
        rows.append(goal_row("KiB per idle session", bench.idle["weir"], IDLE_GOAL))
    return ["**goals**", "", *table(["", "Weir", "goal", ""], rows, "<>><"), ""] if rows else []


def goal_row(title, value, goal):
    return [title, f"{value:.3f}", f"≤ {goal:.1f}", "reached" if value <= goal else "missed"]


def call_lines(bench):
    if not bench.calls:
        return []
    rows = []
    for work, title, _ in measure.WORKS:
        for proxy, _ in bench.proxies:
            calls = bench.calls.get((proxy.key, work))
            if calls:
                most = ", ".join(f"{name} {count:.1f}" for name, count in calls if count >= 0.05)
                rows.append([f"{title}: {proxy.title}", f"{sum(count for _, count in calls):.1f}", most])
    return ["**system calls per message** (`strace -c -f`)", ""] + table(["", "calls", "of which"], rows, "<><") + [""]


def processor():
    with open("/proc/cpuinfo") as f:
        model = re.search(r"^model name\s*:\s*(.+)$", f.read(), re.M)
    name = model.group(1).strip() if model else platform.machine()
    return f"{name}, {os.cpu_count()} processors"


def distribution():
    try:
        with open("/etc/os-release") as f:
            return re.search(r'^PRETTY_NAME="?([^"\n]+)', f.read(), re.M).group(1)
    except (OSError, AttributeError):
        return "?"


def write_document(path, bench, lines, command):
    """Replace what stands between the two marks; the words around them are written by hand."""
    versions = sorted({proxy.version() for proxy, _ in bench.proxies if proxy.version()})
    options = bench.options
    facts = [
        f"- Machine: {processor()}; Linux {platform.release()}; {distribution()}",
        f"- Versions: {', '.join(versions)}",
        f"- Command: `{command}`",
        f"- Date: {time.strftime('%Y-%m-%d')}",
        f"- {options.rounds} rounds of about {options.seconds:g} s a work and proxy, {measure.PARALLEL} sessions at a "
        f"time, {'pinned' if options.pin else 'not pinned'}",
        f"- Other processes used {statistics.median(bench.neighbours):.0%} of the machine meanwhile (median of the rounds)",
        "",
        "Rows: " + "; ".join(f"{proxy.title}: {proxy.note}" for proxy, _ in bench.proxies) + ".",
        "",
    ]
    with open(path) as f:
        text = f.read()
    before, _, rest = text.partition(FIRST_MARK)
    _, _, after = rest.partition(LAST_MARK)
    with open(path, "w") as f:
        f.write(before + "\n".join([FIRST_MARK, "", *facts, *lines, LAST_MARK]) + after)
