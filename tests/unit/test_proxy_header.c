/*
 * PROXY headers: read, octet by octet; refused; written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "net/proxy_header.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define TEXT(text)    text, sizeof(text) - 1 /* a string with NULs in it */

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define FOUR      "\xC0\x00\x02\x01\xC6\x33\x64\x02\x30\x39\x00\x19" /* 192.0.2.1 198.51.100.2 12345 25 */
#define ZEROS8    "\0\0\0\0\0\0\0\0"
#define SIX       "\x20\x01\x0d\xb8" ZEROS8 "\0\0\0\x01\x20\x01\x0d\xb8" ZEROS8 "\0\0\0\x02\xFF\xFF\0\0"
#define MAPPED    ZEROS8 "\0\0\xFF\xFF\xC0\x00\x02\x01" ZEROS8 "\0\0\xFF\xFF\xC6\x33\x64\x02\x30\x39\x00\x19"
#define ZEROS27   ZEROS8 ZEROS8 ZEROS8 "\0\0\0"
#define UNIX      ZEROS27 ZEROS27 ZEROS27 ZEROS27 ZEROS27 ZEROS27 ZEROS27 ZEROS27 /* 216 octets */

static struct peer make_peer(const char *ip, uint16_t port)
{
    struct peer peer = { .port = port };

    if (!ip) {
        peer.family = AF_UNIX;
        return peer;
    }
    peer.family = strchr(ip, ':') ? AF_INET6 : AF_INET;
    assert_int_equal(inet_pton(peer.family, ip, peer.ip), 1);
    return peer;
}

static void assert_peer(const struct peer *peer, const char *expected)
{
    char text[ADDRESS_TEXT_MAX];

    assert_string_equal(peer_format(peer, true, text), expected);
}

/* In memory of just that size, so that the address sanitizer sees a look beyond it. */
static int parse(const char *in, size_t size, struct proxy_header *out)
{
    char *copy = malloc(size ? size : 1);
    int result;

    assert_non_null(copy);
    memcpy(copy, in, size);
    result = proxy_header_parse(copy, size, out);
    free(copy);
    return result;
}

/* Every prefix of a good header says "more", and whatever stands behind it changes nothing. */
static void test_good(void **state)
{
    static const struct {
        const char *in;
        size_t size;
        const char *source, *destination; /* NULL: no addresses */
    } cases[] = {
        {TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 12345 25\r\n"),                      "192.0.2.1:12345",       "198.51.100.2:25"                                },
        { TEXT("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),         "255.255.255.255:65535",
         "255.255.255.255:65535"                                                                                                                                },
        { TEXT("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"),                                 "0.0.0.0:0",             "0.0.0.0:0"                                      },
        { TEXT("PROXY TCP6 2001:db8::1 2001:DB8::2 1 2\r\n"),                         "[2001:db8::1]:1",       "[2001:db8::2]:2"                                },
        { TEXT("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
               "65535 "
               "65535\r\n"),
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",                                                    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
        { TEXT("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n"),                    "192.0.2.1:1",           "[2001:db8::2]:2"                                },
        { TEXT("PROXY UNKNOWN\r\n"),                                                  NULL,                    NULL                                             },
        { TEXT("PROXY UNKNOWN \r\n"),                                                 NULL,                    NULL                                             },
        { TEXT("PROXY UNKNOWN 192.0.2.1 x\t\0\xFF 5\r\n"),                            NULL,                    NULL                                             },
        { TEXT("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
               "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
               "65535\r\n"),                                                 /* 107 octets */
          NULL,                                                           NULL                                             },
        { TEXT(SIGNATURE "\x21\x11\x00\x0C" FOUR),                                    "192.0.2.1:12345",       "198.51.100.2:25"                                },
        { TEXT(SIGNATURE "\x21\x21\x00\x24" SIX),                                     "[2001:db8::1]:65535",   "[2001:db8::2]:0"                                },
        { TEXT(SIGNATURE "\x21\x21\x00\x24" MAPPED),                                  "192.0.2.1:12345",       "198.51.100.2:25"                                },
        { TEXT(SIGNATURE "\x21\x11\x00\x0F" FOUR "\x04\x00\x00"),                     "192.0.2.1:12345",       "198.51.100.2:25"                                },
        { TEXT(SIGNATURE "\x21\x11\x00\x17" FOUR "\xEA\x00\x02xy\x04\x00\x03\0\0\0"), "192.0.2.1:12345",
         "198.51.100.2:25"                                                                                                                                      },
        { TEXT(SIGNATURE "\x21\x00\x00\x00"),                                         NULL,                    NULL                                             },
        { TEXT(SIGNATURE "\x21\x00\x00\x03???"),                                      NULL,                    NULL                                             },
        { TEXT(SIGNATURE "\x20\x00\x00\x00"),                                         NULL,                    NULL                                             },
        { TEXT(SIGNATURE "\x20\x11\x00\x0C" FOUR),                                    NULL,                    NULL                                             },
        { TEXT(SIGNATURE "\x20\x11\x00\x05?????"),                                    NULL,                    NULL                                             },
        { TEXT(SIGNATURE "\x20\xFF\x00\x05?????"),                                    NULL,                    NULL                                             },
        { TEXT(SIGNATURE "\x21\x31\x00\xD8" UNIX),                                    NULL,                    NULL                                             },
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char more[300];
        struct proxy_header header;

        for (size_t n = 0; n < cases[i].size; n++)
            assert_int_equal(parse(cases[i].in, n, &header), 0);
        memcpy(more, cases[i].in, cases[i].size);
        memcpy(more + cases[i].size, "PROXY\r\n", 7);
        for (size_t extra = 0; extra <= 7; extra++) {
            assert_int_equal(parse(more, cases[i].size + extra, &header), cases[i].size);
            assert_int_equal(header.has_addresses, cases[i].source != NULL);
            if (!cases[i].source)
                continue;
            assert_peer(&header.source, cases[i].source);
            assert_peer(&header.destination, cases[i].destination);
        }
    }
}

static void test_bad(void **state)
{
    static const struct {
        const char *in;
        size_t size;
    } cases[] = {
        { TEXT("EHLO a\r\n") },
        { TEXT("x") },
        { TEXT("proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n") },
        { TEXT(" PROXY UNKNOWN\r\n") },
        { TEXT("PROXY\r\n") },
        { TEXT("PROXY \r\n") },
        { TEXT("PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n") },
        { TEXT("PROXY\tTCP4 192.0.2.1 198.51.100.2 1 2\r\n") },
        { TEXT("PROXY UNKNOWNX\r\n") },
        { TEXT("PROXY UNKNOW\r\n") },
        { TEXT("PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n") },
        { TEXT("PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n") },
        { TEXT("PROXY TCP4\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1 \r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n") },
        { TEXT("PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n") },
        { TEXT("PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n") },
        { TEXT("PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n") },
        { TEXT("PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n") },
        { TEXT("PROXY TCP4 0xC0.0.2.1 198.51.100.2 1 2\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1\0 198.51.100.2 1 2\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\0\r\n") },
        { TEXT("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n") },
        { TEXT("PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n") },
        { TEXT("PROXY TCP6 fe80::1%lo fe80::2 1 2\r\n") },
        { TEXT("PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2\r\n") },
        { TEXT("PROXY TCP6 2001:db8::1::2 2001:db8::2 1 2\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1 4294967297\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1 0x2\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n") },
        { TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\rx") },
        { TEXT("PROXY UNKNOWN a\nb\r\n") },
        { TEXT("PROXY UNKNOWN fffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
               "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
               "65535\r\n") }, /* 108 octets */
        { TEXT("\r\n\r\n\0\r\nQUIT\r\n") },
        { TEXT("\r\n\r\n\r\n") },
        { TEXT(SIGNATURE "\x22") },
        { TEXT(SIGNATURE "\x11") },
        { TEXT(SIGNATURE "\x01") },
        { TEXT(SIGNATURE "\x21\x01") },
        { TEXT(SIGNATURE "\x21\x10") },
        { TEXT(SIGNATURE "\x21\x12") }, /* datagrams */
        { TEXT(SIGNATURE "\x21\x22") },
        { TEXT(SIGNATURE "\x21\x32") },
        { TEXT(SIGNATURE "\x21\x41") },
        { TEXT(SIGNATURE "\x21\x11\x00\x0B") }, /* shorter than the addresses */
        { TEXT(SIGNATURE "\x21\x21\x00\x23") },
        { TEXT(SIGNATURE "\x21\x31\x00\xD7") },
        { TEXT(SIGNATURE "\x21\x11\x02\x09") }, /* longer than may be */
        { TEXT(SIGNATURE "\x20\x00\x02\x09") },
        { TEXT(SIGNATURE "\x21\x11\xFF") },
        { TEXT(SIGNATURE "\x21\x11\xFF\xFF") },
        { TEXT(SIGNATURE "\x21\x11\x00\x0D" FOUR "\x04") }, /* a field that does not fit */
        { TEXT(SIGNATURE "\x21\x11\x00\x0E" FOUR "\x04\x00") },
        { TEXT(SIGNATURE "\x21\x11\x00\x0F" FOUR "\x04\x00\x01") },
        { TEXT(SIGNATURE "\x21\x11\x00\x10" FOUR "\x04\xFF\xFF\x01") },
        { TEXT(SIGNATURE "\x21\x11\x00\x11" FOUR "\x03\x00\x02??") }, /* a checksum of two octets */
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct proxy_header header;

        assert_int_equal(parse(cases[i].in, cases[i].size, &header), -1);
    }
}

/* The longest header there may be is taken; nothing waits for more than that. */
static void test_bounds(void **state)
{
    char in[PROXY_HEADER_MAX] = SIGNATURE "\x20\x00\x02\x08", line[PROXY_HEADER_V1_MAX];
    struct proxy_header header;

    (void)state;
    assert_int_equal(parse(in, sizeof in - 1, &header), 0);
    assert_int_equal(parse(in, sizeof in, &header), PROXY_HEADER_MAX);
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY UNKNOWN ", 14);
    assert_int_equal(parse(line, sizeof line - 1, &header), 0);
    assert_int_equal(parse(line, sizeof line, &header), -1);
    line[sizeof line - 1] = '\r';
    assert_int_equal(parse(line, sizeof line, &header), -1);
}

/* The sum was computed by another program, most significant bit first, whose sum of "123456789" is E3069283.
 */
static void test_checksum(void **state)
{
    static const char good[] = SIGNATURE "\x21\x11\x00\x13" FOUR "\x03\x00\x04"
                                         "\x97\x8B\x0B\x4C";
    char in[sizeof good - 1];
    struct proxy_header header;

    (void)state;
    assert_int_equal(parse(good, sizeof in, &header), sizeof in);
    for (size_t i = 16; i < sizeof in; i++) {
        memcpy(in, good, sizeof in);
        in[i] ^= 0x10;
        if (i != 28 && i != 29) /* type and length: then it is no checksum, or does not fit */
            assert_int_equal(parse(in, sizeof in, &header), -1);
    }
}

static void test_format(void **state)
{
    static const struct {
        const char *source, *destination;
        const char *v1;
        const char *read_source, *read_destination;
    } cases[] = {
        {"192.0.2.1",    "198.51.100.2", "PROXY TCP4 192.0.2.1 198.51.100.2 12345 25\r\n", "192.0.2.1:12345",
         "198.51.100.2:25"                                                                                                      },
        { "2001:db8::1", "::1",          "PROXY TCP6 2001:db8::1 ::1 12345 25\r\n",        "[2001:db8::1]:12345",
         "[::1]:25"                                                                                                             },
        { "192.0.2.1",   "::1",          "PROXY TCP6 ::ffff:192.0.2.1 ::1 12345 25\r\n",   "192.0.2.1:12345",     "[::1]:25"    },
        { "::2",         "192.0.2.1",    "PROXY TCP6 ::2 ::ffff:192.0.2.1 12345 25\r\n",   "[::2]:12345",         "192.0.2.1:25"},
        { NULL,          NULL,           "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n",             "0.0.0.0:0",           "0.0.0.0:0"   },
        { NULL,          "192.0.2.1",    "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n",             "0.0.0.0:0",           "0.0.0.0:0"   },
        { "192.0.2.1",   NULL,           "PROXY TCP4 192.0.2.1 0.0.0.0 12345 0\r\n",       "192.0.2.1:12345",     "0.0.0.0:0"   },
        { "2001:db8::1", NULL,           "PROXY TCP6 2001:db8::1 :: 12345 0\r\n",          "[2001:db8::1]:12345", "[::]:0"      },
    };
    static const struct peer nobody = { 0 };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct peer source = make_peer(cases[i].source, 12345),
                    destination = make_peer(cases[i].destination, 25);
        char v1[PROXY_HEADER_V1_MAX + 1], v2[PROXY_HEADER_MAX];
        size_t size1 = proxy_header_format_v1(&source, &destination, v1),
               size2 = proxy_header_format_v2(&source, &destination, NULL, v2);
        struct proxy_header header;

        assert_int_equal(size1, strlen(cases[i].v1));
        assert_memory_equal(v1, cases[i].v1, size1);
        assert_int_equal(parse(v1, size1, &header), size1);
        assert_peer(&header.source, cases[i].read_source);
        assert_peer(&header.destination, cases[i].read_destination);
        assert_int_equal(size2, strstr(cases[i].v1, "TCP4") ? 28 : 52);
        assert_int_equal(parse(v2, size2, &header), size2);
        assert_peer(&header.source, cases[i].read_source);
        assert_peer(&header.destination, cases[i].read_destination);
    }
    /* Of no family, as what accept() knows nothing of: like a Unix socket. */
    char out[PROXY_HEADER_V1_MAX + 1];

    assert_int_equal(proxy_header_format_v1(&nobody, &nobody, out),
                     strlen("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"));
}

/* The longest there is. */
static void test_format_room(void **state)
{
    struct peer peer = { .family = AF_INET6, .port = 65535 };
    char out[PROXY_HEADER_V1_MAX + 1];

    (void)state;
    memset(peer.ip, 0xFF, sizeof peer.ip);
    assert_in_range(proxy_header_format_v1(&peer, &peer, out), 100, PROXY_HEADER_V1_MAX);
}

/* To the octet, for reading it back would not show a mistake that both directions share. */
static void test_format_octets(void **state)
{
    static const char four[] = SIGNATURE "\x21\x11\x00\x0C" FOUR, six[] = SIGNATURE "\x21\x21\x00\x24" SIX;
    struct peer source = make_peer("192.0.2.1", 12345), destination = make_peer("198.51.100.2", 25);
    char out[PROXY_HEADER_MAX];

    (void)state;
    assert_int_equal(proxy_header_format_v2(&source, &destination, NULL, out), sizeof four - 1);
    assert_memory_equal(out, four, sizeof four - 1);
    source = make_peer("2001:db8::1", 65535);
    destination = make_peer("2001:db8::2", 0);
    assert_int_equal(proxy_header_format_v2(&source, &destination, NULL, out), sizeof six - 1);
    assert_memory_equal(out, six, sizeof six - 1);
}

/* What the client's TLS is like, to the octet. */
static void test_format_tls(void **state)
{
    static const struct {
        struct tls_description tls;
        const char *fields; /* behind the addresses */
        size_t size;
    } cases[] = {
        {{ .version = "TLSv1.3", .cipher = "AES" },
         TEXT("\x20\x00\x15\x01\0\0\0\x01"
               "\x21\x00\x07TLSv1.3\x23\x00\x03"
               "AES")                                                                                                          },
        { { .version = "TLSv1.3", .cipher = "AES", .sni = "mx.test", .resumed = true },
         TEXT("\x20\x00\x15\x01\0\0\0\x01"
               "\x21\x00\x07TLSv1.3\x23\x00\x03"
               "AES\x02\x00\x07mx.test")                                                                                       },
        { { .version = "TLSv1.2", .cipher = "AES", .certified = true, .common_name = "me" },
         TEXT("\x20\x00\x1A\x03\0\0\0\0"
               "\x21\x00\x07TLSv1.2\x23\x00\x03"
               "AES"
               "\x22\x00\x02me")                                                                                               },
        { { .version = "TLSv1.2", .cipher = "AES", .certified = true },                      /* a certificate of no name */
          TEXT("\x20\x00\x15\x03\0\0\0\0"
               "\x21\x00\x07TLSv1.2\x23\x00\x03"
               "AES")                                   },
        { { .version = "TLSv1.2", .cipher = "AES", .common_name = "liar" },                  /* was not verified */
          TEXT("\x20\x00\x15\x01\0\0\0\x01"
               "\x21\x00\x07TLSv1.2\x23\x00\x03"
               "AES")                               },
        { { .sni = "" },                                                                     TEXT("\x20\x00\x05\x01\0\0\0\x01")},
    };
    struct peer source = make_peer("192.0.2.1", 12345), destination = make_peer("198.51.100.2", 25);

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char out[PROXY_HEADER_MAX];
        size_t size = proxy_header_format_v2(&source, &destination, &cases[i].tls, out);
        struct proxy_header header;

        assert_int_equal(size, 28 + cases[i].size);
        assert_int_equal((uint8_t)out[14] << 8 | (uint8_t)out[15], size - 16);
        assert_memory_equal(out + 16, FOUR, 12);
        assert_memory_equal(out + 28, cases[i].fields, cases[i].size);
        assert_int_equal(parse(out, size, &header), size);
        assert_peer(&header.source, "192.0.2.1:12345");
        assert_peer(&header.destination, "198.51.100.2:25");
    }
}

/* However long the texts are, the header is one that may be; what does not fit is not there in part. */
static void test_format_tls_room(void **state)
{
    static const struct {
        size_t sni, version, cipher, name;
        size_t size; /* of all fields */
    } cases[] = {
        {59,   7,   30,  64, 8 + 10 + 33 + 67 + 62}, /* to the last octet */
        { 60,  7,   30,  64, 8 + 10 + 33 + 67     }, /* the host gives way to what is sure */
        { 255, 7,   30,  64, 8 + 10 + 33 + 67     },
        { 900, 7,   30,  64, 8 + 10 + 33 + 67     },
        { 20,  900, 30,  64, 8 + 33 + 67 + 23     },
        { 20,  7,   900, 64, 8 + 10 + 67 + 23     },
        { 20,  7,   92,  64, 8 + 10 + 95 + 67     },
        { 20,  7,   93,  64, 8 + 10 + 96 + 23     },
    };
    struct peer source = make_peer("2001:db8::1", 1), destination = make_peer("2001:db8::2", 2);
    char sni[901] = "", version[901] = "", cipher[901] = "";

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct tls_description tls = { .version = version, .cipher = cipher, .sni = sni, .certified = true };
        char *out = malloc(PROXY_HEADER_MAX); /* with nothing behind it */
        struct proxy_header header;
        size_t size;

        assert_non_null(out);
        memset(sni, 0, sizeof sni);
        memset(version, 0, sizeof version);
        memset(cipher, 0, sizeof cipher);
        memset(sni, 's', cases[i].sni);
        memset(version, 'v', cases[i].version);
        memset(cipher, 'c', cases[i].cipher);
        memset(tls.common_name, 'n', cases[i].name);
        size = proxy_header_format_v2(&source, &destination, &tls, out);
        assert_int_equal(size, 52 + cases[i].size);
        assert_in_range(size, 0, PROXY_HEADER_SENT_MAX);
        assert_int_equal(parse(out, size, &header), size);
        assert_peer(&header.source, "[2001:db8::1]:1");
        assert_true(header.tls);
        size = proxy_header_format_v2(&source, &destination, NULL, out);
        assert_int_equal(parse(out, size, &header), size);
        assert_false(header.tls);
        free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_checksum),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_format_room),
        cmocka_unit_test(test_format_octets),
        cmocka_unit_test(test_format_tls),
        cmocka_unit_test(test_format_tls_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
