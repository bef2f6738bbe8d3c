#!/usr/bin/python3
"""Run the tests that are rows of the reliability and security scorecard, and print one line a row. Exit 1 if one fails."""

import os
import sys

import pytest

REDIS = "Redis"

# Number, name, and what has to be built first (None: it is tested now).
ROWS = [
    (1, "LF.LF is no end of data", None),
    (2, "LF.CRLF is no end of data", None),
    (3, "CRLF.LF is no end of data", None),
    (4, "a bare CR beside a dot is no end of data", None),
    (5, "a NUL beside the dot is no end of data", None),
    (6, "rows 1-5 one octet a segment", None),
    (7, "500 random bodies arrive with the same SHA-256", None),
    (8, "end of data and QUIT in one write: 250, then 221", None),
    (9, "an unadvertised BDAT: its chunk is never executed", None),
    (10, "malformed and misplaced BDAT and DATA", None),
    (11, "a body pipelined behind a refused DATA is no command", None),
    (12, "a command pipelined behind STARTTLS is discarded", None),
    (13, "half a command before STARTTLS is never joined to TLS octets", None),
    (14, "STARTTLS in a transaction; MAIL before a new EHLO", None),
    (15, "STARTTLS with an argument, or twice", None),
    (16, "plaintext behind a backend's 220 to STARTTLS", None),
    (17, "a backend hides or refuses STARTTLS under tls = require", None),
    (18, "a backend's certificate is wrong under verify", None),
    (19, "ALPN: http/1.1 fails, smtp and none work", None),
    (20, "TLS 1.2 renegotiation is refused", None),
    (21, "a handshake that stalls is closed at its deadline", None),
    (22, "reload brings a new certificate; a bad PEM leaves the old", None),
    (23, "no SSLv3, TLS 1.0, TLS 1.1; testssl.sh finds nothing", None),
    (24, "talking before the banner: 554 and close", None),
    (25, "HTTP on the mail port: closed on the first line", None),
    (26, "1 MB command without LF: refused, in bounded memory", None),
    (27, "line limits: AUTH 12,288 octets; MAIL over its limit 500", None),
    (28, "a body line of 100 KB arrives intact", None),
    (29, "recipient N+1: 452 4.5.3, the first N delivered", None),
    (30, "junk commands and endless NOOPs: 421", None),
    (31, "an octet now and then, in a command and in a body: cut", None),
    (32, "idle: 421 4.4.2 at the configured time", None),
    (33, "connections per client over the limit: 421 4.7.0, others served", None),
    (34, "AUTH on cleartext: not offered, refused, the password never logged", None),
    (35, "five failed AUTHs: 421", None),
    (36, "AUTH *, bad base64, twice, in a transaction", None),
    (37, "VRFY, EXPN, ETRN, XCLIENT, XFORWARD: answered here, never relayed", None),
    (38, "two codes in one reply: 451, connection dropped", None),
    (39, "an endless reply or a 10 MB line: bounded memory, 451", None),
    (40, "replies octet by octet, with bare LF, without text: parsed or cleanly failed", None),
    (41, "codes 999, abc, an empty line: 451", None),
    (42, "250 for 354, 354 to MAIL: no body is sent, 451", None),
    (43, "550 in mid-body, then it stops reading: the client gets the 550", None),
    (44, "ESC, NUL, lone CR in a reply: sanitised to client and log", None),
    (45, "only what all usable backends offer and Weir carries is offered", None),
    (46, "loss at connect, banner, EHLO: 250 through another backend", None),
    (47, "loss at MAIL, RCPT, DATA: as the table says, never 5xx", None),
    (48, "loss in the body: a 4xx that the client receives", None),
    (49, "loss after the end of data: 451, one backend saw it, logged unknown", None),
    (50, "all backends down: 4xx in time; recovery without a restart", None),
    (51, "kill -9 of a backend under load: every 250'd message is there", None),
    (52, "a PROXY header from a stranger is refused", None),
    (53, "PROXY headers too long, LOCAL, UNKNOWN, octet by octet", None),
    (54, "what a client says of itself is xtext at the backend", None),
    (55, "ESC, %n, invalid UTF-8, bare CR in HELO and MAIL: one well-formed log line each", None),
    (56, "64 descriptors, 200 connections: no spin, recovers", None),
    (57, "1,000 idle TLS sessions within the memory goal", None),
    (58, "Redis refused, silent, loading, full: mail flows", None),
    (59, "garbage in Redis, FLUSHALL in mid-run", None),
    (60, "kill -9 of an instance: the peers' view is true again", None),
]


class Collector:
    """Gathers, for each row, what its tests came to."""

    def __init__(self):
        self.rows = {}
        self.numbers = {}
        self.trouble = []

    def pytest_collection_modifyitems(self, items):
        for item in items:
            for marker in item.iter_markers("scorecard"):
                self.numbers.setdefault(item.nodeid, set()).add(marker.args[0])

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            for number in self.numbers.get(report.nodeid, ()):
                self.rows.setdefault(number, []).append((report.outcome, report.nodeid))
        if report.failed:
            self.trouble.append("%s\n%s" % (report.nodeid, report.longreprtext))

    def pytest_collectreport(self, report):
        if report.failed:
            self.trouble.append("%s\n%s" % (report.nodeid, report.longreprtext))

    def state(self, number, needs):
        found = self.rows.get(number, [])
        if any(outcome == "failed" for outcome, _ in found):
            return "FAIL"
        if any(outcome == "passed" for outcome, _ in found):
            return "pass"
        return "not built yet (%s)" % needs if needs else "FAIL" if not found else "skipped"


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    collector = Collector()
    pytest.main(["-p", "no:cacheprovider", "-p", "no:terminal", "-m", "scorecard", here] + sys.argv[1:], plugins=[collector])
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for number, name, needs in ROWS:
        state = collector.state(number, needs)
        print("%2d  %-82s  %s" % (number, name, state))
        for outcome, test in collector.rows.get(number, []):
            if outcome == "failed":
                print("      %s" % test)
        counts["passed" if state == "pass" else "failed" if state == "FAIL" else "skipped"] += 1
    if collector.trouble and os.environ.get("VERBOSE"):
        print("\n\n".join(collector.trouble))
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts)
    return 1 if counts["failed"] or collector.trouble else 0


if __name__ == "__main__":
    sys.exit(main())
