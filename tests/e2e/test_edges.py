"""Where two things meet that rarely do: a reload and what it takes away, the end of a stream and what is still to be said."""

import os
import socket
import threading
import time

from weirtest.client import Client, Closed
from weirtest.net import free_port, wait_until


# Time

def test_groups_of_body_and_envelope_are_not_one_slow_body(start, relay):
    """RFC 2920 section 3.1: a message may open a group. Each body here is quick; only together do they last."""
    weir = start([relay], listener={"data-timeout": "2s", "min-data-rate": 500})
    group = b"short\r\n.\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n"
    with weir.client() as client:
        client.ehlo().envelope().ok("DATA", 354)
        for _ in range(25):
            client.send(group)
            assert [client.reply().code for _ in range(4)] == [250, 250, 250, 354]
            time.sleep(0.1)
        client.send(b"x\r\n.\r\n")
        client.expect(250)
        client.quit()


# The end of a stream

def test_what_is_still_to_be_said_survives_the_clients_end(start, relay, tmp_path):
    """A client that sends all it has, QUIT too, and closes its sending side, and reads late: it gets every reply."""
    path = str(tmp_path / "smtp.sock")
    weir = start([relay], listener={"address": ["127.0.0.1:%d" % free_port(), "unix:" + path], "max-errors": 10000},
                 start=False)
    weir.port = int(weir.config["listeners"]["smtp"]["address"][0].rpartition(":")[2])
    weir.start()
    for count in range(1500, 2700, 50):  # somewhere here the socket is full when QUIT is read
        with Client(path) as client:
            client.ehlo()
            sending = threading.Thread(target=flood, args=(client, b"HELP\r\n" * count + b"QUIT\r\n"), daemon=True)
            sending.start()
            time.sleep(0.01)
            codes = [reply.code for reply in client.replies()]
            sending.join(5)
            assert codes.count(214) == count and codes[-1] == 221, (count, len(codes), codes[-1])


def flood(client, octets):
    client.send(octets)
    client.sock.shutdown(socket.SHUT_WR)


# Reload

def listens(path_or_port):
    try:
        Client(path_or_port if isinstance(path_or_port, str) else ("127.0.0.1", path_or_port)).close()
        return True
    except (OSError, Closed):
        return False


def test_a_wildcard_address_narrows_and_widens(start, relay):
    weir = start([relay])
    for host in ("0.0.0.0", "127.0.0.1", "0.0.0.0"):
        address = "%s:%d" % (host, weir.port)
        done = len(weir.find_log(event="reload"))
        weir.reload(lambda config: config["listeners"]["smtp"].update(address=[address]))
        wait_until(lambda: len(weir.find_log(event="reload")) > done or weir.find_log(event="reload-failed"), 5, "an answer")
        assert not weir.find_log(event="reload-failed"), weir.output()
        for _ in range(4):
            weir.deliver()


def test_a_removed_unix_listener_leaves_no_file(start, relay, tmp_path):
    path = str(tmp_path / "smtp.sock")
    weir = start([relay])
    weir.reload(lambda config: config["listeners"].update(local={"address": ["unix:" + path], "pool": "relays"}))
    wait_until(lambda: os.path.exists(path) and listens(path), 5, "the new listener accepts")
    weir.reload(lambda config: config["listeners"].pop("local"))
    wait_until(lambda: not os.path.exists(path), 5, "the file is gone with the listener")


def test_a_failed_reload_leaves_no_file(start, relay, tmp_path):
    path = str(tmp_path / "smtp.sock")
    weir = start([relay])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        addresses = ["unix:" + path, "127.0.0.1:%d" % taken.getsockname()[1]]
        weir.reload(lambda config: config["listeners"].update(local={"address": addresses, "pool": "relays"}))
        weir.wait_log(event="reload-failed")
    assert not os.path.exists(path)


def test_a_session_follows_a_pool_that_went_and_came_back(start, relays):
    first, second = relays(2)
    weir = start([first])

    def away(config):
        config["pools"]["other"] = config["pools"].pop("relays")
        config["listeners"]["smtp"]["pool"] = "other"

    def back(config):
        config["pools"]["relays"] = config["pools"].pop("other")
        config["pools"]["relays"]["backends"] = {"r2": {"address": "127.0.0.1:%d" % second.port}}
        config["listeners"]["smtp"]["pool"] = "relays"
    with weir.client() as kept:
        kept.ehlo()
        weir.reload(away)
        weir.wait_log(event="reload")
        weir.reload(back)
        weir.wait_log(event="reload", times=2)
        wait_until(lambda: weir.metric("weir_backend_up", backend="r2") == 1, 5, "r2 is up")
        weir.deliver()
        kept.message(sender="kept@x")
        kept.quit()
    assert b"kept@x" in [one.mail for one in second.committed()]
    weir.relays[:] = [second]


# Start

def test_scraped_while_it_starts(start, relay):
    """A scraper that asks as soon as the port answers must not meet half a process."""
    weir = start([relay], start=False, top={"workers": 128})
    stop = threading.Event()

    def scrape():
        while not stop.is_set():
            try:
                weir.http("/metrics")
            except OSError:
                pass
    scrapers = [threading.Thread(target=scrape, daemon=True) for _ in range(3)]
    for scraper in scrapers:
        scraper.start()
    try:
        for _ in range(3):
            weir.start()
            weir.term()
            assert weir.wait() == 0, weir.output()
    finally:
        stop.set()
    for scraper in scrapers:
        scraper.join(5)
    weir.assert_no_sanitizer()


# Stop

def test_a_successor_keeps_its_unix_socket(start, relay, tmp_path):
    """The old process has let go of the path when it drains, and does not remove the new one's file when it ends."""
    path = str(tmp_path / "smtp.sock")
    old = start([relay], listener={"address": ["unix:" + path]})
    with Client(path) as kept:
        kept.ehlo()
        old.term()
        wait_until(lambda: not listens(path), 5, "the old process accepts no more")
        new = start([relay], listener={"address": ["unix:" + path]})
        kept.message()
        kept.quit()
    assert old.wait() == 0
    with Client(path) as client:
        client.ehlo().message()
        client.quit()
    old.relays.clear()
    new.relays.clear()
