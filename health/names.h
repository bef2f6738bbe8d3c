/*
 * Names: where the backends and their agents are that the configuration gives by host name.
 *
 *     configuration ──▶ names ──▶ farm ──▶ workers, health
 *                        ▲ │ changed
 *            name servers┘ └────▶ a new farm of the same configuration
 *
 * One entry for each host and port, however many backends and pools use it; asked for at once, again when the
 * answer's time is over, and every few seconds while there is none or a relay of it is down. The last answer
 * holds as long as there is no other: a name server that is away, or that denies the name of a moment ago,
 * must not take relays with it. The control thread's alone.
 */
#ifndef WEIR_HEALTH_NAMES_H
#define WEIR_HEALTH_NAMES_H

#include <ev.h>

#include "balancer/farm.h"

#define NAMES_RETRY     5 /* seconds behind a failure */
#define NAMES_TTL_LEAST 5
#define NAMES_TTL_MOST  300

struct names;

/* `changed` is called when some entry's answer is another: addresses have come or gone, or it has become
 * known that there are none. NULL when memory is out. */
struct names *names_open(struct ev_loop *loop, void (*changed)(void *arg), void *arg);
/* Follow the names of this configuration, which is held: forget those that are gone, ask for all others, of
 * the name servers that the configuration or the system has by now. Nothing if it is the same as before. */
void names_follow(struct names *names, struct config *config);
/* A relay there does not answer, and may have moved: ask again before the answer's time is over, but not
 * within NAMES_TTL_LEAST of the last question. */
void names_doubt(struct names *names, const char *host, uint16_t port);
/* What is known of it; NULL: it is not followed. Valid until the loop runs on. */
const struct name_answer *names_find(const struct names *names, const char *host, uint16_t port);
/* The same for farm_create_found(). */
struct name_source names_source(const struct names *names);
void names_close(struct names **names);

#endif
