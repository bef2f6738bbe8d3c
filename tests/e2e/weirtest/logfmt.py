"""A strict reader of logfmt: what it refuses is a broken log line, not a matter of taste."""

import re

PAIR = re.compile(r'([a-zA-Z_][a-zA-Z0-9_.-]*)=(?:"((?:[^"\\]|\\.)*)"|([^ "]*))(?: |\Z)')


def unescape(text):
    def one(found):
        escape = found.group(1)
        if escape[0] == "x":
            return chr(int(escape[1:], 16))
        if escape[0] == "u":
            return chr(int(escape[1:], 16))
        return {"n": "\n", "r": "\r", "t": "\t"}.get(escape, escape)

    return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", one, text)


def parse_line(line):
    """A dict of the line's fields; ValueError if it is not one well-formed line of printable text."""
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in line):
        raise ValueError("control character in %r" % line)
    fields, at = {}, 0
    while at < len(line):
        pair = PAIR.match(line, at)
        if not pair:
            raise ValueError("not key=value at %d: %r" % (at, line))
        if pair.group(1) in fields:
            raise ValueError("field %s twice: %r" % (pair.group(1), line))
        fields[pair.group(1)] = unescape(pair.group(2)) if pair.group(2) is not None else pair.group(3)
        at = pair.end()
    if "event" not in fields or "level" not in fields or "time" not in fields:
        raise ValueError("no time, level or event: %r" % line)
    return fields
