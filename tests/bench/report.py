"""The benchmark's figures as Markdown tables, and docs/benchmarks.md around them."""

import os
import platform
import re
import statistics
import time

import measure
import tls

FIRST_MARK = "<!-- figures: written by tests/bench/bench.py --write -->"
LAST_MARK = "<!-- end of figures -->"


# What Weir must reach: the ratio to HAProxy of processor time per message, and KiB per idle session.
RATIO_GOALS = {"connect": 1.0, "kept": 0.9, "large": 0.7}
IDLE_GOAL = 1.0
# With TLS: the ratio to the better peer of processor time per handshake; KiB per idle session above libssl's floor, and
# its ratio to HAProxy; the ratio to Weir's own plain figure of processor time per message.
HANDSHAKE_GOAL = 1.05
TLS_IDLE_ABOVE_FLOOR_GOAL = 1.5
TLS_IDLE_RATIO_GOAL = 0.8
TLS_MAIL_GOAL = 1.3


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
        if work not in bench.plain_works:
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
    lines += handshake_lines(bench.tls) + tls_idle_lines(bench.tls) + tls_mail_lines(bench.tls)
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
    rows += tls_goal_rows(bench.tls)
    return ["**goals**", "", *table(["", "Weir", "goal", ""], rows, "<>><"), ""] if rows else []


def goal_row(title, value, goal):
    return [title, f"{value:.3f}", f"≤ {goal}", "reached" if value <= goal else "missed"]


def handshake_lines(bench):
    if not bench.rounds:
        return []
    rows = []
    for proxy, _ in bench.proxies:
        rate, cpu = (statistics.median(figures[proxy.key][i] for figures in bench.rounds) for i in range(2))
        ratios = [ratio_text(bench.ratios(proxy.key, reference)) for reference in tls.REFERENCES]
        rows.append([proxy.title, f"{rate:.0f}", f"{cpu:.1f}", *ratios, bench.negotiated[proxy.key]])
    ratios = ["ratio to HAProxy (range)", "ratio to hitch (range)"]
    head = ["", "handshakes/s", "CPU µs per handshake", *ratios, "negotiated"]
    return [f"**{bench.title('tls-handshake')}**", "", *table(head, rows, "<>>>><"), ""]


def tls_idle_lines(bench):
    if not bench.idle:
        return []
    rows = [[kind.title, f"{bench.idle[kind.key]:.2f}"] for kind in tls.PROXIES if kind.key in bench.idle]
    head = ["", "KiB of user memory per session"]
    return [f"**{bench.title('tls-idle')}** ({bench.options.sessions} at a time)", "", *table(head, rows, "<>"), ""]


def tls_mail_lines(bench):
    if not bench.mail:
        return []
    rows = []
    for path, title in tls.PATHS:
        if path in bench.paths:
            rate, cpu = (statistics.median(figures[path][i] for figures in bench.mail) for i in range(2))
            rows.append([title, f"{rate:.0f}", f"{cpu:.1f}", ratio_text(bench.mail_ratios(path))])
    each = bench.mail_count / measure.PARALLEL
    head = ["Weir", "messages/s", "CPU µs per message", "ratio to plain (range)"]
    return [
        f"**{bench.title('tls-mail')}** (about {each:.0f} messages to a session, its handshake included)",
        "",
        *table(head, rows, "<>>>"),
        "",
    ]


def tls_goal_rows(bench):
    rows = []
    handshake = bench.handshake_ratio()
    if handshake is not None:
        title = "CPU, Weir / the better of HAProxy and hitch, new TLS handshake"
        rows.append(goal_row(title, handshake, HANDSHAKE_GOAL))
    idle = bench.idle
    if "weir" in idle and "bare-tls" in idle:
        title = "KiB per idle TLS session above libssl's floor"
        rows.append(goal_row(title, idle["weir"] - idle["bare-tls"], TLS_IDLE_ABOVE_FLOOR_GOAL))
    if "weir" in idle and "haproxy" in idle:
        title = "KiB per idle TLS session, Weir / HAProxy"
        rows.append(goal_row(title, idle["weir"] / idle["haproxy"], TLS_IDLE_RATIO_GOAL))
    if bench.mail:
        title = "CPU, STARTTLS / plain, kept sessions, 4 KB"
        rows.append(goal_row(title, statistics.median(bench.mail_ratios("starttls")), TLS_MAIL_GOAL))
    return rows


def call_lines(bench):
    if not bench.calls and not bench.tls.calls:
        return []
    rows = []

    def add(title, calls):
        most = ", ".join(f"{name} {count:.1f}" for name, count in calls if count >= 0.05)
        rows.append([title, f"{sum(count for _, count in calls):.1f}", most])

    for work, title, _ in measure.WORKS:
        for proxy, _ in bench.proxies:
            calls = bench.calls.get((proxy.key, work))
            if calls:
                add(f"{title}: {proxy.title}", calls)
    for title, calls in bench.tls.calls:
        add(title, calls)
    lines = table(["", "calls", "of which"], rows, "<><")
    return ["**system calls per message or handshake** (`strace -c -f`)", "", *lines, ""]


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
    versions = sorted(({proxy.version() for proxy, _ in bench.proxies} | set(bench.tls.versions())) - {""})
    rows = [f"{proxy.title}: {proxy.note}" for proxy, _ in bench.proxies]
    rows += [f"{proxy.title}, TLS: {proxy.note}" for proxy, _ in bench.tls.proxies]
    options = bench.options
    neighbours = statistics.median(bench.neighbours + bench.tls.neighbours or [0])
    facts = [
        f"- Machine: {processor()}; Linux {platform.release()}; {distribution()}",
        f"- Versions: {', '.join(versions)}",
        f"- Command: `{command}`",
        f"- Date: {time.strftime('%Y-%m-%d')}",
        f"- {options.rounds} rounds of about {options.seconds:g} s a work and proxy, {measure.PARALLEL} sessions at a "
        f"time, {'pinned' if options.pin else 'not pinned'}",
        f"- Other processes used {neighbours:.0%} of the machine meanwhile (median of the rounds)",
        "",
        "Rows: " + "; ".join(rows) + ".",
        "",
    ]
    with open(path) as f:
        text = f.read()
    before, _, rest = text.partition(FIRST_MARK)
    _, _, after = rest.partition(LAST_MARK)
    with open(path, "w") as f:
        f.write(before + "\n".join([FIRST_MARK, "", *facts, *lines, LAST_MARK]) + after)
