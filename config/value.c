#include "config/value.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config/memory.h"
#include "config/number.h"
#include "config/report.h"
#include "config/word.h"
#include "net/address.h"
#include "smtp/auth.h"
#include "smtp/probe.h"

#define DOMAIN_MAX      255 /* octets (RFC 5321 §4.5.3.1.2) */
#define NAMESERVER_PORT 53
/* The struct around a field whose reader fills its neighbours too. */
#define AROUND(field, type_, member) ((struct type_ *)((char *)(field)-offsetof(struct type_, member)))

static bool read_percent(const char *text, uint64_t *out)
{
    const char *end;
    return number_digits(text, out, &end) && strcmp(end, "%") == 0;
}

static bool read_number(const struct option *option, const char *text, uint64_t *out)
{
    const char *end;
    bool good = option->type == OPTION_DURATION  ? number_duration(text, out)
                : option->type == OPTION_PERCENT ? read_percent(text, out)
                : option->type == OPTION_SIZE    ? number_size(text, out)
                                                 : number_digits(text, out, &end) && *end == '\0';
    return good && *out >= option->min && *out <= option->max;
}

static bool read_switch(const char *text, bool *out)
{
    static const char *const words[2][3] = {
        {"false", "no",  "off"},
        { "true", "yes", "on" }
    };
    for (size_t i = 0; i < 6; i++)
        if (strcmp(text, words[i / 3][i % 3]) == 0) {
            *out = i / 3;
            return true;
        }
    return false;
}

static bool read_choice(const struct option *option, const char *text, void *field)
{
    for (unsigned i = 0; option->choices[i]; i++)
        if (strcmp(text, option->choices[i]) == 0) {
            if (option->offset != OPTION_NO_FIELD)
                memcpy(field, &i, sizeof i); /* an enum without negative values is an unsigned int */
            return true;
        }
    return false;
}

static void replace_text(char **field, const char *text)
{
    free(*field);
    *field = memory_text(text);
}

/* A file's name; control characters in one are a mistake, and would break the lines of a report. */
static bool read_path(const char *text, char **field, const char **detail)
{
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            *detail = "there is a control character in it";
            return false;
        }
    replace_text(field, text);
    return true;
}

/* What a certificate can carry: a host name, or an IP address without brackets. */
static bool read_mailbox(const char *text, char **field)
{
    if (!smtp_probe_mailbox_valid(text))
        return false;
    replace_text(field, text);
    return true;
}

static bool read_name(const char *text, char **field)
{
    if (!word_is_name(text))
        return false;
    replace_text(field, text);
    return true;
}

static void free_redis_url(struct redis_url **field)
{
    if (*field)
        redis_url_wipe(*field);
    free(*field);
    *field = NULL;
}

static bool read_redis_url(const char *text, struct redis_url **field, const char **detail)
{
    struct redis_url url;
    if (*text && !redis_url_parse(text, &url, detail))
        return false;
    free_redis_url(field);
    if (*text) {
        *field = memory_zeroed(1, sizeof **field);
        **field = url;
        redis_url_wipe(&url);
    }
    return true;
}

static bool read_tls_name(const char *text, char **field)
{
    struct in6_addr ip;
    if (*text && (*text == '[' || !word_is_domain(text)) && inet_pton(AF_INET6, text, &ip) != 1)
        return false;
    replace_text(field, text);
    return true;
}

/* A user's name, with stars. */
static bool read_user(const char *text, char **field, const char **detail)
{
    if (strlen(text) > SMTP_AUTH_USER_MAX) {
        *detail = "a name is known by its first 255 octets";
        return false;
    }
    return *text && read_path(text, field, detail);
}

/* What can stand in no domain. Brackets are those of an address literal, around all of it. */
static const char *domain_fault(const char *text, size_t size)
{
    bool literal = size > 1 && text[0] == '[' && text[size - 1] == ']';
    if (strchr(text, '@'))
        return "the domain alone is meant, what stands behind the @";
    if (size > DOMAIN_MAX)
        return "a domain has at most 255 octets";
    if (!literal && (text[0] == '.' || strstr(text, "..")))
        return "a label is empty; what is below example.net is *.example.net";
    for (size_t i = literal; i < size - literal; i++) {
        unsigned char c = (unsigned char)text[i];
        if (strchr("[]", c))
            return "[ and ] stand around an address such as [192.0.2.*]; there are no sets of characters";
        if (c < 0x80 && !isalnum(c) && !strchr(literal ? ".*?:" : ".*?-_", c))
            return "no domain has such characters";
    }
    return NULL;
}

/* Without the dot at its end, as senders' domains are compared. */
static bool read_domain(const char *text, char **field, const char **detail)
{
    size_t size = strlen(text);
    if (strcmp(text, "<>") == 0)
        size = 0;
    else
        *detail = domain_fault(text, size);
    if (*detail)
        return false;
    if (size && text[size - 1] == '.')
        size--;
    replace_text(field, text);
    (*field)[size] = '\0';
    return true;
}

static bool read_log_destination(const char *text, struct config_log *log)
{
    enum log_target target = LOG_TARGET_FILE;
    if (strcmp(text, "stderr") == 0)
        target = LOG_TARGET_STDERR;
    else if (strcmp(text, "syslog") == 0)
        target = LOG_TARGET_SYSLOG;
    else if (!strchr(text, '/')) /* a misspelt word must not become a file's name */
        return false;
    log->target = target;
    free(log->path);
    log->path = target == LOG_TARGET_FILE ? memory_text(text) : NULL;
    return true;
}

static bool read_source(const char *text, struct address *out)
{
    struct address address = { 0 };
    if (inet_pton(AF_INET, text, &address.in.sin_addr) == 1) {
        address.in.sin_family = AF_INET;
        address.length = sizeof address.in;
    } else if (inet_pton(AF_INET6, text, &address.in6.sin6_addr) == 1) {
        address.in6.sin6_family = AF_INET6;
        address.length = sizeof address.in6;
    } else if (*text) {
        return false;
    }
    *out = address;
    return true;
}

static bool read_http_address(const char *text, struct config *config, const char **detail)
{
    struct address address = { 0 };
    uint16_t port;
    if (*text && address_parse(text, false, &address, &port, detail) != ADDRESS_LITERAL)
        return false;
    if (*text && address.sa.sa_family == AF_UNIX)
        return false;
    config->http_address = address;
    replace_text(&config->http_address_text, text);
    return true;
}

static bool read_control(const char *text, struct config *config, const char **detail)
{
    struct address address = { 0 };
    uint16_t port;
    if (*text && *text != '/') {
        *detail = "it must begin with \"/\"";
        return false;
    }
    if (*text) {
        char *full = memory_zeroed(strlen(text) + sizeof "unix:", 1);
        strcat(strcpy(full, "unix:"), text);
        enum address_kind kind = address_parse(full, false, &address, &port, detail);
        free(full);
        if (kind != ADDRESS_LITERAL)
            return false;
    }
    config->control_address = address;
    config->control_given = true;
    replace_text(&config->control_path, text);
    return true;
}

static bool is_wildcard(const struct address *address)
{
    return (address->sa.sa_family == AF_INET && address->in.sin_addr.s_addr == INADDR_ANY) ||
           (address->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&address->in6.sin6_addr));
}

static bool read_backend_address(const char *text, struct config_backend *backend, const char **detail)
{
    struct address address = { 0 };
    uint16_t port = 0;
    char *host = NULL;
    switch (address_parse(text, true, &address, &port, detail)) {
    case ADDRESS_BAD: return false;
    case ADDRESS_LITERAL:
        if (is_wildcard(&address)) {
            *detail = "that is no address to connect to";
            return false;
        }
        break;
    case ADDRESS_NAME:
        host = memory_text(text);
        *strrchr(host, ':') = '\0';
        break;
    }
    backend->address = address;
    backend->port = port;
    free(backend->host);
    backend->host = host;
    replace_text(&backend->address_text, text);
    return true;
}

static bool read_port(const char *text, uint16_t *out, const char **detail)
{
    const char *end;
    uint64_t n;
    *detail = "a port is a number from 1 to 65535";
    if (!number_digits(text, &n, &end) || *end || n < 1 || n > UINT16_MAX)
        return false;
    *out = (uint16_t)n;
    return true;
}

static bool read_agent(const char *text, struct config_agent *agent, const char **detail)
{
    struct address address = { 0 };
    uint16_t port = 0;
    char *host = NULL;
    const char *digits = text + (*text == ':');
    if (*digits && !digits[strspn(digits, "0123456789")]) {
        if (!read_port(digits, &port, detail))
            return false;
    } else if (*text) {
        enum address_kind kind = address_parse(text, true, &address, &port, detail);
        if (kind == ADDRESS_BAD)
            return false;
        if (kind == ADDRESS_LITERAL && (address.sa.sa_family == AF_UNIX || is_wildcard(&address))) {
            *detail = "that is no address to connect to";
            return false;
        }
        if (kind == ADDRESS_NAME) {
            host = memory_text(text);
            *strrchr(host, ':') = '\0';
        }
    }
    agent->address = address;
    agent->port = port;
    free(agent->host);
    agent->host = host;
    replace_text(&agent->text, text);
    return true;
}

static bool read_listen_address(const char *text, struct address *out, const char **detail)
{
    uint16_t port;
    return address_parse(text, false, out, &port, detail) == ADDRESS_LITERAL;
}

/* The port may be left out, and then also the brackets around an IPv6 address. */
static bool read_nameserver(const char *text, struct address *out, const char **detail)
{
    uint16_t port;
    const char *ignored; /* it would ask for a port */
    if (read_source(text, out) && out->length) {
        if (out->sa.sa_family == AF_INET)
            out->in.sin_port = htons(NAMESERVER_PORT);
        else
            out->in6.sin6_port = htons(NAMESERVER_PORT);
    } else if (address_parse(text, false, out, &port, &ignored) != ADDRESS_LITERAL ||
               out->sa.sa_family == AF_UNIX) {
        return false;
    }
    if (is_wildcard(out))
        *detail = "that is no address to connect to";
    return !is_wildcard(out);
}

static bool read_field(const struct option *option, void *field, const char *text, const char **detail)
{
    uint64_t n = 0;
    switch (option->type) {
    case OPTION_NUMBER:
    case OPTION_DURATION:
    case OPTION_PERCENT:
        if (!read_number(option, text, &n))
            return false;
        *(uint32_t *)field = (uint32_t)n; /* every range in the table ends below 2^32 */
        return true;
    case OPTION_SIZE:
        if (!read_number(option, text, &n))
            return false;
        *(uint64_t *)field = n;
        return true;
    case OPTION_SWITCH: return read_switch(text, field);
    case OPTION_CHOICE: return read_choice(option, text, field);
    case OPTION_HOSTNAME:
        if (*text && !word_is_domain(text))
            return false;
        replace_text(field, text);
        return true;
    case OPTION_TEXT: replace_text(field, text); return true;
    case OPTION_NAME: return read_name(text, field);
    case OPTION_REDIS_URL: return read_redis_url(text, field, detail);
    case OPTION_PATH: return read_path(text, field, detail);
    case OPTION_PATHS: return *text && read_path(text, field, detail);
    case OPTION_USERS: return read_user(text, field, detail);
    case OPTION_DOMAINS: return read_domain(text, field, detail);
    case OPTION_RATE: return number_rate(text, field, detail);
    case OPTION_LISTENERS: return read_name(text, field);
    case OPTION_MAILBOX: return read_mailbox(text, field);
    case OPTION_TLS_NAME: return read_tls_name(text, field);
    case OPTION_LOG_DESTINATION: return read_log_destination(text, AROUND(field, config_log, target));
    case OPTION_SOURCE: return read_source(text, field);
    case OPTION_HTTP_ADDRESS: return read_http_address(text, AROUND(field, config, http_address), detail);
    case OPTION_CONTROL: return read_control(text, AROUND(field, config, control_address), detail);
    case OPTION_BACKEND_ADDRESS:
        return read_backend_address(text, AROUND(field, config_backend, address), detail);
    case OPTION_AGENT: return read_agent(text, AROUND(field, config_agent, text), detail);
    case OPTION_ADDRESSES: return read_listen_address(text, field, detail);
    case OPTION_NAMESERVERS: return read_nameserver(text, field, detail);
    case OPTION_NETWORKS: return network_parse(text, field, detail);
    case OPTION_POOL: /* check.c resolves the name */ return true;
    case OPTION_SECTION:
    case OPTION_LIST:
    case OPTION_NAMED:
    case OPTION_BACKENDS:
    case OPTION_LATER: break;
    }
    abort(); /* not a scalar: the walk never asks */
}

bool value_read(const struct option *option, void *field, const char *text, char error[VALUE_ERROR_MAX])
{
    const char *detail = NULL;
    if (read_field(option, field, text, &detail))
        return true;
    char expected[VALUE_ERROR_MAX], quoted[REPORT_QUOTE_MAX];
    if (option->type == OPTION_REDIS_URL) { /* there may be a password in it */
        snprintf(error, VALUE_ERROR_MAX, "expected %s", detail);
        return false;
    }
    snprintf(error, VALUE_ERROR_MAX, "expected %s, not \"%s\"%s%s%s", value_expected(option, expected),
             report_quote(text, quoted), detail ? " (" : "", detail ? detail : "", detail ? ")" : "");
    return false;
}

/* "a, b or c" */
static void list_choices(const struct option *option, char out[VALUE_ERROR_MAX])
{
    const char *const *words = option->choices;
    size_t n = 0, used = 0;
    while (words[n])
        n++;
    *out = '\0';
    for (size_t i = 0; i < n && used < VALUE_ERROR_MAX; i++)
        used += (size_t)snprintf(out + used, VALUE_ERROR_MAX - used, "%s%s", words[i],
                                 i + 2 < n    ? ", "
                                 : i + 2 == n ? " or "
                                              : "");
}

const char *value_expected(const struct option *option, char out[VALUE_ERROR_MAX])
{
    char low[NUMBER_TEXT_MAX], high[NUMBER_TEXT_MAX];
    const char *fixed = "";
    switch (option->type) {
    case OPTION_NUMBER:
        snprintf(out, VALUE_ERROR_MAX, "a whole number from %llu to %llu", (unsigned long long)option->min,
                 (unsigned long long)option->max);
        return out;
    case OPTION_DURATION:
        snprintf(out, VALUE_ERROR_MAX, "a duration such as 30s (ms, s, m or h) from %s to %s",
                 option->min ? number_duration_text(option->min, low) : "0",
                 number_duration_text(option->max, high));
        return out;
    case OPTION_PERCENT:
        snprintf(out, VALUE_ERROR_MAX, "a percentage from %llu%% to %llu%%", (unsigned long long)option->min,
                 (unsigned long long)option->max);
        return out;
    case OPTION_SIZE:
        snprintf(out, VALUE_ERROR_MAX, "a size such as 10MB (KB, MB, GB or plain octets) from %s to %s",
                 option->min ? number_size_text(option->min, low) : "0", number_size_text(option->max, high));
        return out;
    case OPTION_CHOICE: list_choices(option, out); return out;
    case OPTION_SWITCH: fixed = "true or false"; break;
    case OPTION_TEXT: fixed = "text"; break;
    case OPTION_NAME:
        fixed = "a name of at most 64 letters, digits, \"_\", \".\" and \"-\", the last two not first";
        break;
    case OPTION_REDIS_URL: fixed = "a URL such as redis://127.0.0.1:6379/0, or \"\""; break;
    case OPTION_PATH:
    case OPTION_PATHS: fixed = "the path of a file"; break;
    case OPTION_MAILBOX: fixed = "a mailbox such as probe@example.net, without < and >, or \"\""; break;
    case OPTION_TLS_NAME: fixed = "a host name such as relay.example.net or an IP address"; break;
    case OPTION_HOSTNAME: fixed = "a host name such as relay.example.net"; break;
    case OPTION_LOG_DESTINATION: fixed = "stderr, syslog or a path with a \"/\" in it"; break;
    case OPTION_SOURCE: fixed = "an IP address without a port"; break;
    case OPTION_HTTP_ADDRESS: fixed = "an IP address and port such as 127.0.0.1:9925, or \"\""; break;
    case OPTION_CONTROL: fixed = "the path of a socket, such as /run/weir/weir.sock, or \"\""; break;
    case OPTION_BACKEND_ADDRESS: fixed = "host:port such as 192.0.2.1:25 or relay.example.net:25"; break;
    case OPTION_AGENT: fixed = "host:port such as 192.0.2.1:9780, a port alone, or \"\""; break;
    case OPTION_POOL: fixed = "the name of a pool"; break;
    case OPTION_ADDRESSES: fixed = "an address such as 192.0.2.1:25, [2001:db8::1]:25 or unix:/path"; break;
    case OPTION_NAMESERVERS:
        fixed = "an IP address such as 192.0.2.53 or, with a port, [2001:db8::53]:5353";
        break;
    case OPTION_NETWORKS: fixed = "a network such as 10.0.0.0/8, an address, or unix"; break;
    case OPTION_USERS: fixed = "a user's name such as news@example.net or news-*"; break;
    case OPTION_DOMAINS:
        fixed = "a domain such as example.net or *.example.net, or \"\" for the null sender";
        break;
    case OPTION_RATE:
        snprintf(out, VALUE_ERROR_MAX, "a number and a period such as 1000/1h, %llu to %llu in 1s to 720h",
                 (unsigned long long)option->min, (unsigned long long)option->max);
        return out;
    case OPTION_LISTENERS: fixed = "the name of a listener"; break;
    case OPTION_SECTION: fixed = "a mapping of keys to values"; break;
    case OPTION_LIST: fixed = "a list of mappings of keys to values"; break;
    case OPTION_NAMED: fixed = "a mapping of names"; break;
    case OPTION_BACKENDS: fixed = "a mapping of names to backends, or a list of names"; break;
    case OPTION_LATER: break;
    }
    snprintf(out, VALUE_ERROR_MAX, "%s", fixed);
    return out;
}

size_t value_element_size(enum option_type type)
{
    return type == OPTION_ADDRESSES || type == OPTION_NAMESERVERS ? sizeof(struct address)
           : type == OPTION_NETWORKS                              ? sizeof(struct network)
                                                                  : sizeof(char *);
}

void value_free(enum option_type type, void *field)
{
    switch (type) {
    case OPTION_TEXT:
    case OPTION_NAME:
    case OPTION_PATH:
    case OPTION_MAILBOX:
    case OPTION_TLS_NAME:
    case OPTION_HOSTNAME:
    case OPTION_ADDRESSES:
    case OPTION_NAMESERVERS:
    case OPTION_NETWORKS:
    case OPTION_BACKENDS: free(*(void **)field); break;
    case OPTION_REDIS_URL: free_redis_url(field); break;
    case OPTION_LOG_DESTINATION: free(AROUND(field, config_log, target)->path); break;
    case OPTION_HTTP_ADDRESS: free(AROUND(field, config, http_address)->http_address_text); break;
    case OPTION_CONTROL: free(AROUND(field, config, control_address)->control_path); break;
    case OPTION_BACKEND_ADDRESS:
        free(AROUND(field, config_backend, address)->address_text);
        free(AROUND(field, config_backend, address)->host);
        break;
    case OPTION_AGENT:
        free(AROUND(field, config_agent, text)->text);
        free(AROUND(field, config_agent, text)->host);
        break;
    case OPTION_NUMBER:
    case OPTION_SIZE:
    case OPTION_DURATION:
    case OPTION_PERCENT:
    case OPTION_SWITCH:
    case OPTION_CHOICE:
    case OPTION_SOURCE:
    case OPTION_POOL:
    case OPTION_RATE:
    case OPTION_PATHS: /* its elements too are the list's owner's: option_free() */
    case OPTION_USERS:
    case OPTION_DOMAINS:
    case OPTION_LISTENERS:
    case OPTION_SECTION:
    case OPTION_LIST:
    case OPTION_NAMED:
    case OPTION_LATER: break;
    }
}
