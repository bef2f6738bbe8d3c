#!/usr/bin/env python3
"""Which folder may include what: the floors of ARCHITECTURE.md, the libraries' homes, and no circles.

Prints one line per offence and exits 1; `--self-test` checks this checker.
"""
import os
import re
import sys

FLOORS = {"net": 0, "smtp": 0, "config": 1, "balancer": 2, "health": 3, "counters": 3, "admin": 4, "proxy": 5}

# Folders that include nothing but themselves: no sockets, no clocks.
PURE = {"smtp"}

# A library's headers, and the folders that may touch it.
HOMES = [
    (r"ev\.h|ev\+\+\.h", {"net", "health", "counters", "admin", "proxy"}),
    (r"openssl/.*", {"net"}),
    (r"ares\.h|ares_.*\.h", {"net"}),
    (r"hiredis.*", {"counters"}),
    (r"microhttpd\.h", {"admin"}),
    (r"jansson\.h", {"admin", "counters"}),
    (r"yaml\.h", {"config"}),
]

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.M)
COMMENT = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.S)


def strip_comments(text):
    """Blank out comments, keep line numbers; strings stay, so that what looks like a comment in one does not count."""
    def blank(match):
        return match[0] if match[0].startswith('"') else re.sub(r"[^\n]", " ", match[0])
    return COMMENT.sub(blank, text)


def includes_of(text):
    text = strip_comments(text)
    for match in INCLUDE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[1], match[2]


def own_offence(folder, target, paths):
    """Why a file of `folder` may not include the project's own `target`, or None."""
    if "/" not in target:
        return "name the folder: \"%s/%s\"" % (folder, target)
    there = target.split("/")[0]
    if there not in FLOORS:
        return "%s/ is none of the program's folders" % there
    if target not in paths:
        return "there is no such file"
    if there == folder:
        return None
    if folder in PURE:
        return "%s/ may include only itself" % folder
    if FLOORS[there] == FLOORS[folder]:
        return "%s/ and %s/ are on one floor" % (folder, there)
    if FLOORS[there] > FLOORS[folder]:
        return "%s/ is above %s/" % (there, folder)
    return None


def library_offence(folder, target):
    for pattern, homes in HOMES:
        if re.fullmatch(pattern, target) and folder not in homes:
            return "<%s> belongs into %s/" % (target, "/, ".join(sorted(homes)))
    return None


def find_circle(graph):
    """A list of files that include each other in turn, or None."""
    done = set()

    def visit(path, trail):
        if path in trail:
            return trail[trail.index(path):] + [path]
        if path in done:
            return None
        for target in graph.get(path, ()):
            circle = visit(target, trail + [path])
            if circle:
                return circle
        done.add(path)
        return None

    for path in sorted(graph):
        circle = visit(path, [])
        if circle:
            return circle
    return None


def check(files):
    """Offences in {path: text}."""
    offences, graph = [], {}
    for path in sorted(files):
        folder = path.split("/")[0]
        graph[path] = []
        for line, own, library in includes_of(files[path]):
            why = own_offence(folder, own, files) if own else library_offence(folder, library)
            if why:
                offences.append("%s:%d: %s" % (path, line, why))
            if own in files:
                graph[path].append(own)
    circle = find_circle(graph)
    if circle:
        offences.append("%s: a circle: %s" % (circle[0], " -> ".join(circle)))
    return offences


def read_sources():
    files = {}
    for folder in FLOORS:
        for parent, _, names in os.walk(folder):
            for name in names:
                if name.endswith((".c", ".h")):
                    path = os.path.join(parent, name)
                    with open(path, encoding="utf-8", errors="surrogateescape") as file:
                        files[path] = file.read()
    return files


def self_test():
    base = {"net/log.h": "", "smtp/scan.h": "", "config/config.h": "", "health/a.h": "",
            "counters/c.h": "", "admin/a.h": "", "proxy/worker.h": ""}
    table = [
        ("net/x.c", '#include "net/log.h"\n#include <ev.h>\n#include <openssl/ssl.h>\n#include <stdio.h>', 0),
        ("net/x.c", '#include "smtp/scan.h"', 1),
        ("net/x.c", '#include "config/config.h"', 1),
        ("net/x.c", '  #  include "proxy/worker.h"', 1),
        ("net/x.c", '/* #include "proxy/worker.h" */\n// #include "proxy/worker.h"', 0),
        ("net/x.c", '/*\n#include "proxy/worker.h"\n*/ static char *s = "/*";\n#include "proxy/worker.h"', 1),
        ("net/x.c", '#include "log.h"', 1),
        ("net/x.c", '#include "net/none.h"', 1),
        ("net/x.c", '#include "tests/unit/x.h"', 1),
        ("smtp/x.c", '#include "smtp/scan.h"', 0),
        ("smtp/x.c", '#include "net/log.h"', 1),
        ("smtp/x.c", '#include <ev.h>', 1),
        ("health/x.c", '#include "net/log.h"\n#include "smtp/scan.h"\n#include "config/config.h"\n#include <ev.h>', 0),
        ("health/x.c", '#include "counters/c.h"\n#include <openssl/ssl.h>\n#include <yaml.h>', 3),
        ("counters/x.c", '#include "health/a.h"', 1),
        ("counters/x.c", '#include <hiredis/hiredis.h>\n#include <ev.h>\n#include "config/config.h"', 0),
        ("proxy/x.c", '#include "admin/a.h"\n#include <hiredis/hiredis.h>\n#include <microhttpd.h>\n#include <ares.h>', 3),
        ("balancer/x.c", '#include <ev.h>', 1),
        ("net/log.h", '#include "net/log.h"', 1),
    ]
    for path, text, expected in table:
        found = check({**base, path: text})
        if len(found) != expected:
            sys.exit("self-test: %s with %r: %d expected: %s" % (path, text, expected, found))
    circle = check({"net/a.h": '#include "net/b.h"', "net/b.h": '#include "net/c.h"', "net/c.h": '#include "net/a.h"'})
    if len(circle) != 1 or "a circle" not in circle[0]:
        sys.exit("self-test: no circle: %s" % circle)


def main():
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        return
    offences = check(read_sources())
    print("\n".join(offences), end="\n" if offences else "")
    sys.exit(1 if offences else 0)


main()
