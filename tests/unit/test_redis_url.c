/* Where Redis is: texts that are understood, texts that are not, and what may be shown of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/redis_url.h"

/* Each as it is shown again, and with what is never shown. */
static const struct {
    const char *text, *shown, *user, *password;
} good[] = {
    {"redis://127.0.0.1",                   "redis://127.0.0.1:6379",                      "",     ""        },
    { "redis://127.0.0.1:6379/0",           "redis://127.0.0.1:6379",                      "",     ""        },
    { "redis://127.0.0.1/",                 "redis://127.0.0.1:6379",                      "",     ""        },
    { "redis://redis.example.net:7000/15",  "redis://redis.example.net:7000/15",           "",     ""        },
    { "redis://my_redis",                   "redis://my_redis:6379",                       "",     ""        },
    { "redis://[2001:db8::1]",              "redis://[2001:db8::1]:6379",                  "",     ""        },
    { "redis://[::1]:65535/3",              "redis://[::1]:65535/3",                       "",     ""        },
    { "redis://:secret@h",                  "redis://h:6379",                              "",     "secret"  },
    { "redis://secret@h",                   "redis://h:6379",                              "",     "secret"  },
    { "redis://weir:p%40ss%2F%3a%25@h:1/2", "redis://h:1/2",                               "weir", "p@ss/:%" },
    { "redis://weir:a@b@h",                 "redis://h:6379",                              "weir", "a@b"     },
    { "redis://w%65ir:a:b@h",               "redis://h:6379",                              "weir", "a:b"     },
    { "rediss://weir:%c3%a4@h/1",           "rediss://h:6379/1",                           "weir", "\xc3\xa4"},
    { "unix:/run/redis/redis.sock",         "unix:/run/redis/redis.sock",                  "",     ""        },
    { "unix:/run/a@b?db=4",                 "unix:/run/a@b?db=4",                          "",     ""        },
    { "unix:weir:pw@/run/r?db=0",           "unix:/run/r",                                 "weir", "pw"      },
    { "sentinel://a,b:5,[::1]/mymaster",    "sentinel://a:26379,b:5,[::1]:26379/mymaster", "",     ""        },
    { "sentinel://:pw@a/m/7?tls=on",        "sentinel://a:26379/m/7?tls=on",               "",     "pw"      },
    { "sentinel://a/m/",                    "sentinel://a:26379/m",                        "",     ""        },
    { "cluster://a,b:7001,c",               "cluster://a:6379,b:7001,c:6379",              "",     ""        },
    { "cluster://u:p@a/?tls=on",            "cluster://a:6379?tls=on",                     "u",    "p"       },
    { "cluster://a?tls=on&tls=off",         "cluster://a:6379",                            "",     ""        },
};

static const struct {
    const char *text, *error;
} bad[] = {
    {"",                                                     "redis://, rediss://, unix:, sentinel:// or cluster:// at the beginning"               },
    { "127.0.0.1:6379",                                      "redis://, rediss://, unix:, sentinel:// or cluster:// at the beginning"               },
    { "Redis://h",                                           "redis://, rediss://, unix:, sentinel:// or cluster:// at the beginning"               },
    { "redis:/h",                                            "redis://, rediss://, unix:, sentinel:// or cluster:// at the beginning"               },
    { "redis://h h",                                         "no blanks and control characters"                                                     },
    { "redis://h\n",                                         "no blanks and control characters"                                                     },
    { "redis://",                                            "host:port such as 192.0.2.1:6379, [2001:db8::1]:6379 or redis.example.net"            },
    { "redis:///0",                                          "host:port such as 192.0.2.1:6379, [2001:db8::1]:6379 or redis.example.net"            },
    { "redis://a,b",                                         "host:port such as 192.0.2.1:6379, [2001:db8::1]:6379 or redis.example.net"            },
    { "redis://::1",                                         "host:port such as 192.0.2.1:6379, [2001:db8::1]:6379 or redis.example.net"            },
    { "redis://[::1",                                        "host:port such as 192.0.2.1:6379, [2001:db8::1]:6379 or redis.example.net"            },
    { "redis://[::1]x",                                      "host:port such as 192.0.2.1:6379, [2001:db8::1]:6379 or redis.example.net"            },
    { "redis://[::g]:1",                                     "host:port such as 192.0.2.1:6379, [2001:db8::1]:6379 or redis.example.net"            },
    { "redis://[h]:1",                                       "host:port such as 192.0.2.1:6379, [2001:db8::1]:6379 or redis.example.net"            },
    { "redis://h%20:1",                                      "host:port such as 192.0.2.1:6379, [2001:db8::1]:6379 or redis.example.net"            },
    { "redis://h:",                                          "a port from 1 to 65535"                                                               },
    { "redis://h:0",                                         "a port from 1 to 65535"                                                               },
    { "redis://h:65536",                                     "a port from 1 to 65535"                                                               },
    { "redis://h:4294967297",                                "a port from 1 to 65535"                                                               },
    { "redis://h:1x",                                        "a port from 1 to 65535"                                                               },
    { "redis://h/x",                                         "the number of a database, such as 0"                                                  },
    { "redis://h/-1",                                        "the number of a database, such as 0"                                                  },
    { "redis://h/65536",                                     "the number of a database, such as 0"                                                  },
    { "redis://h/1/2",                                       "the number of a database, such as 0"                                                  },
    { "redis://h?db=1",                                      "no \"?\"; TLS is rediss://, a database /N"                                            },
    { "redis://@h",                                          "a password before the @"                                                              },
    { "redis://user:@h",                                     "a password before the @"                                                              },
    { "redis://a%4:b@h",                                     "the user: at most 511 octets, with %XX for what is not a plain letter or digit"       },
    { "redis://:%zz@h",
     "the password: at most 511 octets, with %XX for what is not a plain letter or digit"                                                           },
    { "redis://:%00@h",
     "the password: at most 511 octets, with %XX for what is not a plain letter or digit"                                                           },
    { "redis://:a%4@h",
     "the password: at most 511 octets, with %XX for what is not a plain letter or digit"                                                           },
    { "unix:",                                               "the absolute path of a socket, at most 107 octets, such as unix:/run/redis/redis.sock"},
    { "unix:/",                                              "the absolute path of a socket, at most 107 octets, such as unix:/run/redis/redis.sock"},
    { "unix:run/redis",
     "the absolute path of a socket, at most 107 octets, such as unix:/run/redis/redis.sock"                                                        },
    { "unix:/run/r?db",                                      "db=N behind the \"?\""                                                                },
    { "unix:/run/r?tls=on",                                  "db=N behind the \"?\""                                                                },
    { "unix:/run/r?db=x",                                    "the number of a database, such as 0"                                                  },
    { "sentinel://a",                                        "the master's name behind the hosts, such as sentinel://host1,host2/mymaster"          },
    { "sentinel://a/",                                       "the master's name behind the hosts, such as sentinel://host1,host2/mymaster"          },
    { "sentinel://a//0",                                     "the master's name behind the hosts, such as sentinel://host1,host2/mymaster"          },
    { "sentinel://a,/m",                                     "host:port such as 192.0.2.1:6379, [2001:db8::1]:6379 or redis.example.net"            },
    { "sentinel://a/m/x",                                    "the number of a database, such as 0"                                                  },
    { "sentinel://a/m?tls=yes",                              "tls=on or tls=off behind the \"?\""                                                   },
    { "cluster://a/1",                                       "nothing behind the hosts; a cluster has database 0 only"                              },
    { "cluster://a?db=1",                                    "tls=on or tls=off behind the \"?\""                                                   },
    { "cluster://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "at most 16 hosts"                                                                     },
};

static void test_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct redis_url url;
        const char *error = NULL;
        char shown[REDIS_URL_TEXT_MAX];

        if (!redis_url_parse(good[i].text, &url, &error))
            fail_msg("%s: %s", good[i].text, error);
        assert_string_equal(redis_url_show(&url, shown), good[i].shown);
        assert_string_equal(url.user, good[i].user);
        assert_string_equal(url.password, good[i].password);
        if (!*url.password) { /* what is shown means the same */
            struct redis_url again;

            assert_true(redis_url_parse(shown, &again, &error));
            assert_memory_equal(&again, &url, sizeof url);
        }
        redis_url_wipe(&url);
        assert_string_equal(url.password, "");
    }
}

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct redis_url url, before;
        const char *error = NULL;

        memset(&url, 0x55, sizeof url);
        before = url;
        if (redis_url_parse(bad[i].text, &url, &error))
            fail_msg("%s is taken", bad[i].text);
        assert_string_equal(error, bad[i].error);
        assert_memory_equal(&url, &before, sizeof url);
    }
}

/* Every field at its longest, and one octet more. */
static void check_long(const char *before, size_t n, const char *after)
{
    for (size_t size = n; size <= n + 1; size++) {
        char text[2048], name[1024] = "";
        struct redis_url url;
        const char *error;

        memset(name, 'a', size);
        (void)snprintf(text, sizeof text, "%s%s%s", before, name, after);
        assert_int_equal(redis_url_parse(text, &url, &error), size == n);
    }
}

static void test_longest(void **state)
{
    (void)state;
    check_long("redis://:", REDIS_URL_SECRET_MAX - 1, "@h");
    check_long("redis://", REDIS_URL_SECRET_MAX - 1, ":p@h");
    check_long("redis://", REDIS_URL_HOST_MAX - 1, "/1");
    check_long("unix:/", REDIS_URL_PATH_MAX - 2, "");
    check_long("sentinel://h/", REDIS_URL_NAME_MAX - 1, "");
}

static void test_hosts(void **state)
{
    static const struct {
        const char *text, *shown; /* NULL: not taken */
    } hosts[] = {
        {"127.0.0.1:6379",         "127.0.0.1:6379"       },
        { "redis-1.example.net:1", "redis-1.example.net:1"},
        { "2001:db8::1:7000",      "[2001:db8::1]:7000"   },
        { "[2001:db8::1]:7000",    "[2001:db8::1]:7000"   },
        { ":6379",                 NULL                   },
        { "h",                     NULL                   },
        { "h:",                    NULL                   },
        { "h:0",                   NULL                   },
        { "[::1]",                 NULL                   },
        { "h:70000",               NULL                   },
        { "a/b:1",                 NULL                   },
        { "1:2:3",                 NULL                   },
    };

    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        struct redis_url_host host;
        char text[REDIS_URL_HOST_MAX + 8];

        assert_int_equal(redis_url_host_parse(hosts[i].text, strlen(hosts[i].text), &host), !!hosts[i].shown);
        if (hosts[i].shown)
            assert_string_equal(redis_url_host_show(&host, text), hosts[i].shown);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_hosts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
