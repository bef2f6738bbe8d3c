#include "config/redis.h"

#define LEASE_INTERVALS 4 /* a report may be late or lost without an instance being taken for dead */

#define REPORT(draft, origin, ...) report_add(&(draft)->report, (origin)->place, (origin)->key, __VA_ARGS__)

/* What only a URL gives a meaning to. */
static void check_useless(struct draft *draft, const struct config_redis *redis)
{
    const void *const fields[] = { &redis->farm, &redis->publish_interval, &redis->lease,
                                   &redis->expected_instances, &redis->ca };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const struct origin *origin = draft_origin(draft, fields[i]);
        if (origin)
            REPORT(draft, origin, "has no effect without Redis; expected the key url beside it");
    }
}

static void check_lease(struct draft *draft, const struct config_redis *redis)
{
    const struct origin *lease = draft_origin(draft, &redis->lease);
    const struct origin *interval = draft_origin(draft, &redis->publish_interval);
    if (draft_is_wrong(draft, &redis->lease) || draft_is_wrong(draft, &redis->publish_interval) ||
        redis->lease >= LEASE_INTERVALS * redis->publish_interval)
        return;
    /* One of the two is the file's: the defaults go together. */
    REPORT(draft, lease ? lease : interval,
           "a lease of %ums is shorter than four times the publish-interval of %ums, so that a live instance "
           "could be taken for dead; expected a longer lease or a shorter publish-interval",
           redis->lease, redis->publish_interval);
}

static void report_file(void *arg, enum tls_culprit culprit, size_t index, const char *text)
{
    struct draft *draft = arg;
    const struct config_redis *redis = &draft->config->redis;
    const struct origin *file = culprit == TLS_CULPRIT_AUTHORITY ? draft_origin(draft, &redis->ca) : NULL;
    (void)index;
    if (file)
        REPORT(draft, file, "%s %s", file->text, text);
    else /* the system's authorities, or no file at all */
        REPORT(draft, draft_origin(draft, &redis->url), "%s", text);
}

void config_redis_check(struct draft *draft)
{
    struct config_redis *redis = &draft->config->redis;
    if (draft_is_wrong(draft, &redis->url))
        return;
    if (!redis->url) {
        check_useless(draft, redis);
        return;
    }
    check_lease(draft, redis);
    const struct origin *ca = draft_origin(draft, &redis->ca);
    if (ca && *redis->ca && !redis->url->tls)
        REPORT(
            draft, ca,
            "has no effect without TLS; expected url: rediss://, or ?tls=on behind sentinels or a cluster");
    if (redis->url->tls)
        redis->tls = tls_client_create(&(struct tls_client_settings){ .verify = true, .ca = redis->ca },
                                       report_file, draft);
}

void config_redis_free(struct config *config)
{
    tls_client_free(&config->redis.tls);
}
