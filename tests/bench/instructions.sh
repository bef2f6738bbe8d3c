#!/bin/sh
# Instructions per message, by valgrind's callgrind: the same code gives the same figure on a noisy machine too.
# Two runs over kept sessions, one with 1,000 messages more; start-up and shutdown cancel out in the difference.
#   instructions.sh [-v] [plain|connect|starttls|handshake]
#   -v: also the functions that the longer run spent most in
#   connect: a session for each message; starttls: mail through build/release/bench/tls_pipe; handshake: new TLS 1.3 sessions, each ended at once, 200 more
# The program is build/release/weir, or $WEIR. With $REDIS, a URL, it shares its counts there.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
weir=${WEIR:-$root/build/release/weir}
few=200
more=1000
sessions=4
verbose=
[ "${1:-}" != -v ] || { verbose=yes; shift; }
work=${1:-plain}
what=message
case $work in
plain | connect | starttls) ;;
handshake) few=20 more=200 what=handshake ;;
*) echo "usage: instructions.sh [-v] [plain|connect|starttls|handshake]"; exit 2 ;;
esac
tls_pipe=$root/build/release/bench/tls_pipe
PATH=$PATH:/usr/sbin
for tool in valgrind smtp-source smtp-sink python3 openssl; do
    command -v $tool >/dev/null || { echo "instructions.sh: $tool is not installed"; exit 1; }
done
[ -x "$weir" ] || { echo "instructions.sh: $weir is not built"; exit 1; }
[ $work != starttls ] || [ -x "$tls_pipe" ] || { echo "instructions.sh: $tls_pipe is not built"; exit 1; }

dir=$(mktemp -d /tmp/weir-instructions.XXXXXX)
chmod 755 "$dir"
sink_pid= weir_pid= pipe_pid=
cleanup() {
    for pid in $sink_pid $weir_pid $pipe_pid; do kill -9 "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

free_ports='import socket
s = [socket.socket() for _ in range(5)]
[x.bind(("127.0.0.1", 0)) for x in s]
print(*[x.getsockname()[1] for x in s])'
# One message through means: everything is up. A refused connect or a 4xx is tried again.
wait_for_mail='import smtplib, sys, time
end = time.monotonic() + 60
while True:
    try:
        with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), "bench.test", timeout=30) as c:
            c.sendmail("a@bench.test", ["b@bench.test"], "\r\nready\r\n")
        break
    except (OSError, smtplib.SMTPException) as error:
        if time.monotonic() > end:
            sys.exit(f"no message got through: {error}")
        time.sleep(0.05)'

# One at a time; a client that leaves without a word is no error.
shake_hands='import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
for _ in range(int(sys.argv[2])):
    with context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])))) as s:
        s.recv(512)'

set -- $(python3 -c "$free_ports")
listen=$1 backend=$2 starttls=$3 implicit=$4 pipe=$5
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=bench.test \
    -keyout "$dir/key" -out "$dir/chain" 2>/dev/null
cat "$dir/chain" "$dir/key" >"$dir/pem"
as_user=
[ "$(id -u)" -ne 0 ] || as_user="-u nobody"
smtp-sink $as_user "127.0.0.1:$backend" 100 &
sink_pid=$!

# Checks come by the clock, not by the message: one at the start, the next when all is over.
cat >"$dir/weir.yaml" <<END
workers: 1
hostname: bench.test
redis: { url: "${REDIS:-}" }
log: { destination: $dir/weir.log, format: logfmt, level: info }
http: { address: "" }
listeners:
  smtp: { address: ["127.0.0.1:$listen"], pool: relays }
  submission: { address: ["127.0.0.1:$starttls"], pool: relays, tls: starttls, certificate: ["$dir/pem"] }
  smtps: { address: ["127.0.0.1:$implicit"], pool: relays, tls: implicit, certificate: ["$dir/pem"] }
pools:
  relays:
    health: { interval: 1h }
    backends: { r1: { address: "127.0.0.1:$backend" } }
END

if [ $work = starttls ]; then
    "$tls_pipe" "$pipe" "$starttls" starttls &
    pipe_pid=$!
fi
port=$listen
[ $work != starttls ] || port=$pipe

do_work() { # messages or handshakes
    if [ $work = handshake ]; then
        python3 -c "$shake_hands" "$implicit" "$1"
    else
        smtp-source $keep -s $sessions -m "$1" -l 4096 -f a@bench.test -t b@bench.test "127.0.0.1:$port" >&2
    fi
}

workers_file() { # of a run
    grep -l session_conclude "$1"-*
}

total() {
    sed -n 's/^totals: *//p' "$@" | awk '{ sum += $1 } END { print sum }'
}

count() { # messages or handshakes → instructions of one run: all, and the worker's
    valgrind --tool=callgrind --separate-threads=yes --callgrind-out-file="$dir/callgrind.$1" "$weir" -c "$dir/weir.yaml" >"$dir/valgrind" 2>&1 &
    weir_pid=$!
    python3 -c "$wait_for_mail" "$port" || { cat "$dir/valgrind" >&2; exit 1; }
    do_work "$1"
    kill -TERM $weir_pid
    wait $weir_pid || { cat "$dir/valgrind" >&2; exit 1; }
    weir_pid=
    echo "$(total "$dir/callgrind.$1"-*) $(total "$(workers_file "$dir/callgrind.$1")")"
}

keep=-d
[ $work != connect ] || keep=
set -- $(count $few)
set -- $1 $2 $(count $((few + more)))
case $work in
plain) how="kept sessions, 4 KB" ;;
connect) how="a session each, 4 KB" ;;
starttls) how="kept sessions, 4 KB, STARTTLS" ;;
handshake) how="TLS 1.3, P-256, banner read" ;;
esac
echo "instructions per $what ($how): $((($3 - $1) / more)), the worker's $((($4 - $2) / more))"
[ -z "$verbose" ] || callgrind_annotate "$(workers_file "$dir/callgrind.$((few + more))")" | sed -n '/Ir/,$p' | head -n 40
