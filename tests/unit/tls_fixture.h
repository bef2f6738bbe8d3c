/*
 * What the tests of TLS share: keys, certificates and the files that hold them, in a directory of their own.
 *
 *     struct fixture fixture;
 *     fixture_open(&fixture);                             the directory, and an authority in ca.pem
 *     fixture_leaf(&fixture, "a.pem", FIXTURE_EC, "DNS:a.example");       chain and key, in a.pem
 *     fixture_path(&fixture, "a.pem")
 *     fixture_close(&fixture);
 */
#ifndef WEIR_TESTS_TLS_FIXTURE_H
#define WEIR_TESTS_TLS_FIXTURE_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/dsa.h>
#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum fixture_key { FIXTURE_RSA, FIXTURE_EC, FIXTURE_ED25519, FIXTURE_RSA1024, FIXTURE_DSA, FIXTURE_KEYS };

#define FIXTURE_DAY (24 * 3600L)

struct fixture_identity {
    EVP_PKEY *key; /* of fixture_key(): borrowed */
    X509 *certificate;
};

struct fixture {
    char directory[32];
    struct fixture_identity authority; /* in ca.pem, without its key */
    long serial;
};

/* What a certificate says. Zeroed members: the comment's. */
struct fixture_wish {
    enum fixture_key key;
    bool other_key;          /* another one of that kind (nothing else has it but others with this flag) */
    const char *common_name; /* none */
    const char *names;       /* "DNS:a.example,IP:127.0.0.1"; no SAN */
    const char *usage;       /* "clientAuth"; any */
    bool authority;          /* it may sign others */
    long from, until;        /* seconds from now; since yesterday, until tomorrow */
    const struct fixture_identity *issuer; /* self-signed */
};

/* The next 31 calls leave the text alone. */
static inline const char *fixture_path(const struct fixture *fixture, const char *file)
{
    static char paths[32][512];
    static unsigned turn;
    char *path = paths[turn++ % 32];

    assert_true(snprintf(path, sizeof paths[0], "%s/%s", fixture->directory, file) > 0);
    return path;
}

/* Nobody makes certificates of them any more; parameters of 1024 bits are found soon. */
static inline EVP_PKEY *fixture_make_dsa(void)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "DSA", NULL);
    EVP_PKEY *parameters = NULL, *key = NULL;

    assert_int_equal(EVP_PKEY_paramgen_init(context), 1);
    assert_int_equal(EVP_PKEY_CTX_set_dsa_paramgen_bits(context, 1024), 1);
    assert_int_equal(EVP_PKEY_paramgen(context, &parameters), 1);
    EVP_PKEY_CTX_free(context);
    context = EVP_PKEY_CTX_new_from_pkey(NULL, parameters, NULL);
    assert_int_equal(EVP_PKEY_keygen_init(context), 1);
    assert_int_equal(EVP_PKEY_keygen(context, &key), 1);
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(parameters);
    return key;
}

static inline EVP_PKEY *fixture_make_key(enum fixture_key kind)
{
    switch (kind) {
    case FIXTURE_RSA: return EVP_RSA_gen(2048);
    case FIXTURE_EC: return EVP_EC_gen("P-256");
    case FIXTURE_ED25519: return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    case FIXTURE_RSA1024: return EVP_RSA_gen(1024);
    case FIXTURE_DSA: return fixture_make_dsa();
    case FIXTURE_KEYS: break;
    }
    return NULL;
}

/* A key of that kind: the same one each time, because making RSA keys takes long. */
static inline EVP_PKEY *fixture_key(enum fixture_key kind, bool other)
{
    static EVP_PKEY *keys[FIXTURE_KEYS][2];

    if (!keys[kind][other])
        keys[kind][other] = fixture_make_key(kind);
    assert_non_null(keys[kind][other]);
    return keys[kind][other];
}

static inline void fixture_extend(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

/* The caller frees the certificate. */
static inline struct fixture_identity fixture_identity(struct fixture *fixture,
                                                       const struct fixture_wish *wish)
{
    struct fixture_identity made = { .key = fixture_key(wish->key, wish->other_key),
                                     .certificate = X509_new() };
    X509 *certificate = made.certificate;
    X509 *issuer = wish->issuer ? wish->issuer->certificate : certificate;
    EVP_PKEY *signer = wish->issuer ? wish->issuer->key : made.key;
    X509_NAME *subject = X509_get_subject_name(certificate);

    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++fixture->serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), wish->from ? wish->from : -FIXTURE_DAY);
    X509_gmtime_adj(X509_getm_notAfter(certificate), wish->until ? wish->until : FIXTURE_DAY);
    if (wish->common_name)
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)wish->common_name, -1,
                                   -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(issuer));
    X509_set_pubkey(certificate, made.key);
    if (wish->authority)
        fixture_extend(certificate, issuer, NID_basic_constraints, "critical,CA:TRUE");
    if (wish->names)
        fixture_extend(certificate, issuer, NID_subject_alt_name, wish->names);
    if (wish->usage)
        fixture_extend(certificate, issuer, NID_ext_key_usage, wish->usage);
    assert_true(X509_sign(certificate, signer,
                          wish->key == FIXTURE_ED25519 && !wish->issuer ? NULL : EVP_sha256()) > 0);
    return made;
}

static inline FILE *fixture_write(struct fixture *fixture, const char *file)
{
    FILE *out = fopen(fixture_path(fixture, file), "w");

    assert_non_null(out);
    return out;
}

static inline const char *fixture_text(struct fixture *fixture, const char *file, const char *text)
{
    FILE *out = fixture_write(fixture, file);

    fputs(text, out);
    assert_int_equal(fclose(out), 0);
    return fixture_path(fixture, file);
}

/* The certificate, the issuer's if there is one, and the key. Returns the path. */
static inline const char *fixture_file(struct fixture *fixture, const char *file,
                                       const struct fixture_wish *wish)
{
    struct fixture_identity made = fixture_identity(fixture, wish);
    FILE *out = fixture_write(fixture, file);

    assert_int_equal(PEM_write_X509(out, made.certificate), 1);
    if (wish->issuer)
        assert_int_equal(PEM_write_X509(out, wish->issuer->certificate), 1);
    assert_int_equal(PEM_write_PrivateKey(out, made.key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(out), 0);
    X509_free(made.certificate);
    return fixture_path(fixture, file);
}

/* The same, of the fixture's authority and for these names. */
static inline const char *fixture_leaf(struct fixture *fixture, const char *file, enum fixture_key key,
                                       const char *names)
{
    return fixture_file(fixture, file,
                        &(struct fixture_wish){ .key = key, .names = names, .issuer = &fixture->authority });
}

static inline X509 *fixture_read(struct fixture *fixture, const char *file)
{
    FILE *in = fopen(fixture_path(fixture, file), "r");
    X509 *certificate;

    assert_non_null(in);
    certificate = PEM_read_X509(in, NULL, NULL, NULL);
    assert_non_null(certificate);
    fclose(in);
    return certificate;
}

/* An OCSP response of the authority's about the first certificate in `file`, with a nextUpdate so many
 * seconds from now (0: none), and so many other certificates' states before its own. Returns its octets. */
static inline long fixture_staple(struct fixture *fixture, const char *file, const char *out, long until,
                                  int others)
{
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, -FIXTURE_DAY), *next = until ? X509_gmtime_adj(NULL, until) : NULL;
    X509 *about = fixture_read(fixture, file);
    OCSP_CERTID *id = OCSP_cert_to_id(EVP_sha1(), about, fixture->authority.certificate);
    ASN1_INTEGER *serial;
    OCSP_CERTID *other = OCSP_CERTID_dup(id);
    OCSP_RESPONSE *response;
    unsigned char *octets = NULL;
    FILE *stream = fixture_write(fixture, out);
    long size;

    OCSP_id_get0_info(NULL, NULL, NULL, &serial, other);
    for (int i = 0; i < others; i++) {
        ASN1_INTEGER_set(serial, 1000000 + i);
        OCSP_basic_add1_status(basic, other, V_OCSP_CERTSTATUS_GOOD, 0, NULL, now, next);
    }
    OCSP_basic_add1_status(basic, id, V_OCSP_CERTSTATUS_GOOD, 0, NULL, now, next);
    assert_int_equal(OCSP_basic_sign(basic, fixture->authority.certificate, fixture->authority.key,
                                     EVP_sha256(), NULL, OCSP_NOCERTS),
                     1);
    response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    size = i2d_OCSP_RESPONSE(response, &octets);
    assert_true(size > 0);
    assert_int_equal(fwrite(octets, 1, (size_t)size, stream), size);
    fclose(stream);
    OPENSSL_free(octets);
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(id);
    OCSP_CERTID_free(other);
    ASN1_TIME_free(now);
    ASN1_TIME_free(next);
    X509_free(about);
    return size;
}

static inline void fixture_open(struct fixture *fixture)
{
    FILE *out;

    *fixture = (struct fixture){ .directory = "/tmp/weir-tls-XXXXXX" };
    assert_non_null(mkdtemp(fixture->directory));
    fixture->authority = fixture_identity(
        fixture,
        &(struct fixture_wish){ .key = FIXTURE_EC, .common_name = "Test Authority", .authority = true });
    out = fixture_write(fixture, "ca.pem");
    assert_int_equal(PEM_write_X509(out, fixture->authority.certificate), 1);
    assert_int_equal(fclose(out), 0);
}

static inline void fixture_close(struct fixture *fixture)
{
    DIR *directory = opendir(fixture->directory);
    struct dirent *entry;

    assert_non_null(directory);
    while ((entry = readdir(directory)))
        if (entry->d_name[0] != '.')
            unlink(fixture_path(fixture, entry->d_name));
    closedir(directory);
    assert_int_equal(rmdir(fixture->directory), 0);
    X509_free(fixture->authority.certificate);
}

#endif
