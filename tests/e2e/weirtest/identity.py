"""PROXY headers, and the attributes of XCLIENT and XFORWARD: written, and read back without forgiving anything."""

import re
import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1_LONGEST = 107
NUMBER = r"(0|[1-9][0-9]{0,4})"
V1_LINE = re.compile(r"PROXY (TCP4|TCP6) (\S+) (\S+) %s %s\r\n" % (NUMBER, NUMBER))


class Malformed(ValueError):
    """The peer sent something that is not what it should be."""


class Header:
    """`source` and `destination` are (address, port); `tlvs` a dict of type → octets."""

    def __init__(self, version, source, destination, size, tlvs=None):
        self.version, self.source, self.destination, self.size = version, source, destination, size
        self.tlvs = tlvs or {}

    @property
    def authority(self):
        """PP2_TYPE_AUTHORITY: the host that the client named. None: nothing was said."""
        return self.tlvs.get(0x02)

    @property
    def tls(self):
        """PP2_TYPE_SSL: (bits of the client, verify, a dict of sub-type → octets), or None."""
        value = self.tlvs.get(0x20)
        if value is None:
            return None
        if len(value) < 5:
            raise Malformed("PP2_TYPE_SSL: %r" % value)
        return (*struct.unpack_from("!BI", value), parse_tlvs(value, 5, len(value)))


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def v1(source, destination=("127.0.0.1", 25)):
    name = "TCP6" if family_of(source[0]) == socket.AF_INET6 else "TCP4"
    return ("PROXY %s %s %s %d %d\r\n" % (name, source[0], destination[0], source[1], destination[1])).encode()


def v2(source=None, destination=None, tlvs=b"", command=1, family=None):
    """Without a source: no addresses (LOCAL with `command` 0, else UNSPEC)."""
    if source is None:
        return v2_raw(tlvs, command, family or 0)
    domain = family_of(source[0])
    destination = destination or (("::1", 25) if domain == socket.AF_INET6 else ("127.0.0.1", 25))
    block = (socket.inet_pton(domain, source[0]) + socket.inet_pton(domain, destination[0])
             + struct.pack("!HH", source[1], destination[1]))
    return v2_raw(block + tlvs, command, family or (0x21 if domain == socket.AF_INET6 else 0x11))


def v2_raw(block, command=1, family=0x11, version=2, length=None):
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, family, len(block) if length is None else length) + block


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def parse_header(octets):
    """
    What Weir may send as the very first: a whole header that tells an address, PROXY over TCP4 or TCP6. Malformed for
    everything else, what a peer might put up with too: Postfix takes no UNKNOWN.
    """
    if octets.startswith(SIGNATURE):
        return parse_v2(octets)
    end = octets.find(b"\r\n") + 2
    line = V1_LINE.fullmatch(octets[:end].decode("ascii", "replace"))
    if end < 2 or end > V1_LONGEST or not line:
        raise Malformed("no PROXY header: %r" % octets)
    domain = socket.AF_INET6 if line.group(1) == "TCP6" else socket.AF_INET
    try:
        for address in line.group(2, 3):
            socket.inet_pton(domain, address)
    except OSError:
        raise Malformed("not a %s address: %r" % (line.group(1), octets)) from None
    source, destination = (line.group(2), int(line.group(4))), (line.group(3), int(line.group(5)))
    if source[1] > 65535 or destination[1] > 65535:
        raise Malformed("port: %r" % octets)
    return Header(1, source, destination, end)


def parse_v2(octets):
    if len(octets) < 16:
        raise Malformed("half a header: %r" % octets)
    version, family, length = struct.unpack_from("!BBH", octets, 12)
    domain = {0x11: socket.AF_INET, 0x21: socket.AF_INET6}.get(family)
    if version != 0x21 or domain is None:
        raise Malformed("version %#x, family %#x: %r" % (version, family, octets))
    width = 4 if domain == socket.AF_INET else 16
    if length < 2 * width + 4 or len(octets) < 16 + length:
        raise Malformed("length %d: %r" % (length, octets))
    source, destination = (socket.inet_ntop(domain, octets[16 + n * width:16 + (n + 1) * width]) for n in range(2))
    ports = struct.unpack_from("!HH", octets, 16 + 2 * width)
    tlvs = parse_tlvs(octets, 16 + 2 * width + 4, 16 + length)
    header = Header(2, (source, ports[0]), (destination, ports[1]), 16 + length, tlvs)
    header.tls  # what is in it has to be whole
    return header


def parse_tlvs(octets, at, end):
    found = {}
    while at < end:
        if end - at < 3 or end - at < 3 + struct.unpack_from("!H", octets, at + 1)[0]:
            raise Malformed("TLV at %d: %r" % (at, octets))
        size = struct.unpack_from("!H", octets, at + 1)[0]
        if octets[at] in found:
            raise Malformed("TLV %#x twice: %r" % (octets[at], octets))
        found[octets[at]] = octets[at + 3:at + 3 + size]
        at += 3 + size
    return found


# XCLIENT and XFORWARD

XCLIENT_ATTRIBUTES = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
XFORWARD_ATTRIBUTES = "NAME ADDR PORT PROTO HELO IDENT SOURCE"
UNKNOWN = (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]")


def xtext(octets):
    """RFC 3461 section 4."""
    return b"".join(bytes([octet]) if 33 <= octet <= 126 and octet not in b"+=" else b"+%02X" % octet for octet in octets)


def unxtext(value):
    if not re.fullmatch(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+", value):
        raise Malformed("not xtext: %r" % value)
    return re.sub(rb"\+(..)", lambda found: bytes([int(found.group(1), 16)]), value)


def parse_attributes(line, listed):
    """The command line without its CRLF → a dict of attribute → octets. `listed`: what the server said that it takes."""
    if len(line) + 2 > 512:
        raise Malformed("%d octets in one command" % (len(line) + 2))
    found = {}
    for word in line.split(b" ")[1:]:
        name, equals, value = word.partition(b"=")
        name = name.decode("ascii", "replace").upper()
        if not equals or name not in listed.upper().split():
            raise Malformed("attribute %r: %r" % (name, line))
        if name in found:
            raise Malformed("%s twice: %r" % (name, line))
        found[name] = unxtext(value)
    if not found:
        raise Malformed("no attribute: %r" % line)
    check_values(found, line)
    return found


def check_values(found, line):
    for name in ("ADDR", "DESTADDR"):
        value = found.get(name)
        if value is not None and value not in UNKNOWN:
            six = value.upper().startswith(b"IPV6:")
            try:
                socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, value[5 if six else 0:].decode("ascii"))
            except (OSError, UnicodeDecodeError):
                raise Malformed("%s: %r" % (name, line)) from None
    for name in ("PORT", "DESTPORT"):
        value = found.get(name)
        if value is not None and value not in UNKNOWN and not (re.fullmatch(NUMBER.encode(), value) and int(value) < 65536):
            raise Malformed("%s: %r" % (name, line))
    if found.get("PROTO", b"SMTP") not in (b"SMTP", b"ESMTP") + UNKNOWN:
        raise Malformed("PROTO: %r" % line)
