#!/bin/sh
# How much this Postfix can take, in one line of HAProxy's agent-check: "up 80% # 612 of 1000 in the queue".
#
#   weir-agent.sh [-q QUEUE] [-m MAX] [-s FILE]
#
#   -q QUEUE   Postfix's queue_directory; default: what postconf says
#   -m MAX     so many messages are too many; default 1000
#   -s FILE    the operator's words, put behind the others so that they count: "drain", "ready", "down #upgrade";
#              default /run/weir-agent.say
#
# It speaks to whoever started it: systemd (weir-agent.socket), inetd, or socat. Counted are incoming and active, what
# Postfix still has to deliver; deferred mail waits for others and is no load. All of the weight below half of MAX,
# falling to a tenth at MAX, none above. It never says "ready" by itself, for that would undo what an operator of the
# balancer has said.
set -u

queue=
max=1000
say=/run/weir-agent.say

while getopts q:m:s: option; do
    case $option in
    q) queue=$OPTARG ;;
    m) max=$OPTARG ;;
    s) say=$OPTARG ;;
    *) exit 2 ;;
    esac
done
case $max in
*[!0-9]* | '' | 0*)
    echo "weir-agent: -m wants a number above 0, not \"$max\"" >&2
    exit 2
    ;;
esac
[ -n "$queue" ] || queue=$(postconf -h queue_directory 2>/dev/null) || queue=/var/spool/postfix

# What can't be seen is not judged: a line without words changes nothing.
for name in incoming active; do
    if [ ! -r "$queue/$name" ] || [ ! -x "$queue/$name" ]; then
        echo "# can't look into $queue/$name"
        exit 1
    fi
done

# No further than it matters: a queue of a million is not counted to its end.
depth=$(find "$queue/incoming" "$queue/active" -type f 2>/dev/null | head -n $((max + 1)) | wc -l)
depth=$((depth))

if [ $((depth * 2)) -lt "$max" ]; then
    percent=100
elif [ "$depth" -le "$max" ]; then
    percent=$((100 - 90 * (2 * depth - max) / max))
else
    percent=0
fi

words=
why="$depth of $max in the queue"
if [ -r "$say" ]; then
    IFS= read -r words <"$say" || [ -n "$words" ] || words=
fi
case $words in
*'#'*)
    why=${words#*#}
    words=${words%%#*}
    ;;
esac
echo "up $percent% $words # $why"
