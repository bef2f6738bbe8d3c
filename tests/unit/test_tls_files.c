/* What is told of files that no context can be made of; every text once. */
#include <sys/stat.h>

#include "tests/unit/tls_ends.h"

static void assert_faults(struct tls_server_settings settings, const char *const *files, const char *text)
{
    settings.listener = "smtp";
    assert_null(try_server(settings, files));
    assert_string_equal(faults, text);
}

static void assert_file(const char *file, const char *text)
{
    assert_faults((struct tls_server_settings){ .listener = "" }, FILES(file), text);
}

/* Copies, in this order: the characters c and k stand for the certificate and key of "a.pem". */
static const char *compose(const char *file, const char *order)
{
    X509 *certificate = fixture_read(&fixture, "a.pem");
    FILE *out = fixture_write(&fixture, file);

    for (; *order; order++)
        if (*order == 'c')
            PEM_write_X509(out, certificate);
        else
            PEM_write_PrivateKey(out, fixture_key(FIXTURE_EC, *order == 'o'), NULL, NULL, 0, NULL, NULL);
    fclose(out);
    X509_free(certificate);
    return file;
}

static void append(const char *file, const char *text)
{
    FILE *out = fopen(fixture_path(&fixture, file), "a");

    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static void test_certificates(void **state)
{
    static const char whole[] = "expected the chain and the key in one file";
    char text[256];

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    assert_file("gone.pem", "c0: cannot be read: No such file or directory\n");
    mkdir(fixture_path(&fixture, "directory"), 0700);
    assert_file("directory", "c0: cannot be read: Is a directory\n");
    rmdir(fixture_path(&fixture, "directory"));
    snprintf(text, sizeof text, "c0: holds no certificate; %s\n", whole);
    assert_file(compose("key.pem", "k"), text);
    fixture_text(&fixture, "text.pem", "This is no certificate.\n");
    assert_file("text.pem", text);
    fixture_text(&fixture, "empty.pem", "");
    assert_file("empty.pem", text);
    snprintf(text, sizeof text, "c0: holds no private key; %s\n", whole);
    assert_file(compose("certificate.pem", "cc"), text);
    assert_file(compose("foreign.pem", "co"),
                "c0: holds a private key that does not belong to its first certificate\n");
    assert_file(compose("two.pem", "ckk"), "c0: holds more than one private key\n");
    compose("large.pem", "ck");
    assert_int_equal(truncate(fixture_path(&fixture, "large.pem"), 5 << 20), 0);
    assert_file("large.pem", "c0: has 5242880 octets; expected at most 4194304\n");
}

static void test_malformed_certificates(void **state)
{
    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    compose("chain.pem", "ck");
    append("chain.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    assert_file("chain.pem", "c0: is malformed: certificate 2 in it cannot be parsed: header too long\n");
    compose("cut.pem", "kc");
    append("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    assert_file("cut.pem", "c0: is malformed: bad end line\n");
    compose("base64.pem", "kc");
    append("base64.pem", "-----BEGIN CERTIFICATE-----\nM??B\n-----END CERTIFICATE-----\n");
    assert_file("base64.pem", "c0: is malformed: bad base64 decode\n");
    fixture_text(&fixture, "first.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    assert_null(try_server((struct tls_server_settings){ .listener = "smtp" }, FILES("first.pem")));
    assert_non_null(strstr(faults, "c0: is malformed: certificate 1 in it cannot be parsed: "));
    compose("key.pem", "c");
    append("key.pem", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
    assert_null(try_server((struct tls_server_settings){ .listener = "smtp" }, FILES("key.pem")));
    assert_non_null(strstr(faults, "c0: holds a malformed private key: "));
}

static void write_key(const char *file, const EVP_PKEY *key, const EVP_CIPHER *cipher, bool traditional)
{
    FILE *out = fopen(fixture_path(&fixture, file), "a");
    BIO *bio = BIO_new_fp(out, BIO_NOCLOSE);
    unsigned char password[] = "secret";

    if (traditional)
        assert_int_equal(PEM_write_bio_PrivateKey_traditional(bio, key, cipher, cipher ? password : NULL,
                                                              cipher ? 6 : 0, NULL, NULL),
                         1);
    else
        assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, key, cipher, cipher ? (char *)password : NULL,
                                                       cipher ? 6 : 0, NULL, NULL),
                         1);
    BIO_free(bio);
    fclose(out);
}

/* Neither form of encryption may ask at the terminal for a password. */
static void test_encrypted_keys(void **state)
{
    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    for (int traditional = 0; traditional < 2; traditional++) {
        compose("secret.pem", "c");
        write_key("secret.pem", fixture_key(FIXTURE_EC, false), EVP_aes_256_cbc(), traditional);
        assert_file("secret.pem", "c0: holds an encrypted private key; expected one without a password\n");
    }
}

/* All forms that tools write. */
static void test_keys_of_every_form(void **state)
{
    (void)state;
    for (int traditional = 0; traditional < 2; traditional++)
        for (int rsa = 0; rsa < 2; rsa++) {
            enum fixture_key kind = rsa ? FIXTURE_RSA : FIXTURE_EC;
            struct tls_server *server;
            X509 *certificate;
            FILE *out;
            make_leaf("a.pem", kind, "DNS:a.example");
            certificate = fixture_read(&fixture, "a.pem");
            out = fixture_write(&fixture, "form.pem");
            /* As `openssl ecparam -genkey` leaves them, and as people annotate them. */
            fputs("Bag Attributes\n-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n"
                  "-----END EC PARAMETERS-----\n",
                  out);
            PEM_write_X509(out, certificate);
            fclose(out);
            write_key("form.pem", fixture_key(kind, false), NULL, traditional);
            X509_free(certificate);
            server = SERVER("form.pem");
            tls_server_free(&server);
        }
}

static void test_keys_that_nobody_would_accept(void **state)
{
    (void)state;
    make_leaf("small.pem", FIXTURE_RSA1024, "DNS:a.example");
    assert_file("small.pem", "c0: is refused at OpenSSL's security level 2: ee key too small\n");
    make_leaf("dsa.pem", FIXTURE_DSA, "DNS:a.example");
    assert_file("dsa.pem", "c0: holds a key of the kind DSA; expected RSA, ECDSA or Ed25519\n");
}

/* An operator must be able to start while waiting for the next one. */
static void test_dates_are_not_judged(void **state)
{
    struct fixture_wish wish = { .key = FIXTURE_EC, .names = "DNS:a.example", .until = -3600 };
    struct tls_server *server;

    (void)state;
    fixture_file(&fixture, "expired.pem", &wish);
    wish.from = FIXTURE_DAY;
    wish.until = 2 * FIXTURE_DAY;
    fixture_file(&fixture, "early.pem", &wish);
    server = SERVER("expired.pem", "early.pem");
    tls_server_free(&server);
}

static void assert_keys(const char *content, const char *text)
{
    struct tls_server_settings settings = { .ticket_keys = fixture_text(&fixture, "keys", content) };

    assert_faults(settings, FILES("a.pem"), text);
}

#define KEY_A                                                                                                \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"                                                   \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
#define KEY_B                                                                                                \
    "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"                                                   \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

static void test_ticket_keys(void **state)
{
    struct tls_server_settings settings = { .listener = "smtp" };
    struct tls_server *server;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    settings.ticket_keys = fixture_path(&fixture, "gone");
    assert_faults(settings, FILES("a.pem"), "t0: cannot be read: No such file or directory\n");
    assert_keys("", "t0: holds no ticket key; expected a line with base64 of 80 octets\n");
    assert_keys("\n# " KEY_A "\n \n", "t0: holds no ticket key; expected a line with base64 of 80 octets\n");
    assert_keys("# first\n" KEY_A "\nshort\n",
                "t0: has no ticket key in line 3; expected base64 of 80 octets\n");
    assert_keys("x" KEY_A "\n\n" KEY_B "x",
                "t0: has no ticket key in line 1; expected base64 of 80 octets\n"
                "t0: has no ticket key in line 3; expected base64 of 80 octets\n");
    assert_keys(KEY_A " " KEY_B "\n", "t0: has no ticket key in line 1; expected base64 of 80 octets\n");
    assert_keys("=" KEY_A, "t0: has no ticket key in line 1; expected base64 of 80 octets\n");
    assert_keys(KEY_A "\n" KEY_B "\n" KEY_A "\n",
                "t0: has in line 3 a ticket key of the same name as in line 1\n");
    settings.ticket_keys = fixture_text(&fixture, "keys", "# comment\r\n\t" KEY_A " \r\n\n" KEY_B);
    server = make_server(settings, FILES("a.pem"));
    tls_server_free(&server);
}

static void test_authorities(void **state)
{
    struct tls_server_settings settings = { .listener = "smtp" };

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    settings.client_ca = fixture_path(&fixture, "gone");
    assert_faults(settings, FILES("a.pem"), "a0: cannot be read: No such file or directory\n");
    settings.client_ca = fixture_text(&fixture, "text", "nothing\n");
    assert_faults(settings, FILES("a.pem"), "a0: holds no certificate\n");
    compose("authority.pem", "c");
    append("authority.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    settings.client_ca = fixture_path(&fixture, "authority.pem");
    assert_faults(settings, FILES("a.pem"),
                  "a0: is malformed: certificate 2 in it cannot be parsed: header too long\n");
}

static void write_refusal(const char *file)
{
    OCSP_RESPONSE *response = OCSP_response_create(OCSP_RESPONSE_STATUS_TRYLATER, NULL);
    FILE *out = fixture_write(&fixture, file);
    unsigned char *octets = NULL;
    int size = i2d_OCSP_RESPONSE(response, &octets);

    fwrite(octets, 1, (size_t)size, out);
    fclose(out);
    OPENSSL_free(octets);
    OCSP_RESPONSE_free(response);
}

/* Without the issuer in the file, only its name can be compared. */
static void check_lonely(void)
{
    struct tls_server *server;

    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    fixture_staple(&fixture, "a.pem", "lonely.pem.ocsp", 60, 0);
    compose("lonely.pem", "ck");
    server = SERVER("lonely.pem");
    tls_server_free(&server);
    fixture.serial--;
    fixture_file(&fixture, "same-serial.pem",
                 &(struct fixture_wish){ .key = FIXTURE_EC, .common_name = "Self" });
    fixture_staple(&fixture, "same-serial.pem", "lonely.pem.ocsp", 60, 0);
    assert_file("lonely.pem", "c0: comes with lonely.pem.ocsp, which is about another certificate\n");
}

/* Of the same name and serial, but another authority's: its key tells. */
static void check_namesake(void)
{
    struct fixture_identity namesake = fixture_identity(
        &fixture,
        &(struct fixture_wish){
            .key = FIXTURE_EC, .other_key = true, .common_name = "Test Authority", .authority = true });

    fixture_file(&fixture, "namesake.pem",
                 &(struct fixture_wish){ .key = FIXTURE_EC, .names = "DNS:a.example", .issuer = &namesake });
    fixture_staple(&fixture, "namesake.pem", "namesake.pem.ocsp", 60, 0);
    assert_file("namesake.pem", "c0: comes with namesake.pem.ocsp, which is about another certificate\n");
    X509_free(namesake.certificate);
}

static void test_responses(void **state)
{
    static const char malformed[] =
        "c0: comes with a.pem.ocsp, which is malformed; expected an OCSP response in DER\n";

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    make_leaf("b.pem", FIXTURE_EC, "DNS:b.example");
    mkdir(fixture_path(&fixture, "a.pem.ocsp"), 0700);
    assert_file("a.pem", "c0: comes with a.pem.ocsp, which cannot be read: Is a directory\n");
    rmdir(fixture_path(&fixture, "a.pem.ocsp"));
    fixture_text(&fixture, "a.pem.ocsp", "");
    assert_file("a.pem", malformed);
    fixture_text(&fixture, "a.pem.ocsp", "no response");
    assert_file("a.pem", malformed);
    fixture_staple(&fixture, "a.pem", "a.pem.ocsp", 60, 0);
    append("a.pem.ocsp", "\n");
    assert_file("a.pem", malformed);
    write_refusal("a.pem.ocsp");
    assert_file("a.pem",
                "c0: comes with a.pem.ocsp, which says \"trylater\"; expected a successful OCSP response\n");
    fixture_staple(&fixture, "b.pem", "a.pem.ocsp", 60, 2);
    assert_file("a.pem", "c0: comes with a.pem.ocsp, which is about another certificate\n");
    unlink(fixture_path(&fixture, "a.pem.ocsp"));
    check_lonely();
    check_namesake();
}

static void test_everything_is_told_at_once(void **state)
{
    struct tls_server_settings settings = { .listener = "smtp" };

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    settings.ticket_keys = fixture_text(&fixture, "keys", "x\n");
    settings.client_ca = fixture_path(&fixture, "gone");
    fixture_text(&fixture, "c.pem.ocsp", "");
    make_leaf("c.pem", FIXTURE_EC, "DNS:c.example");
    assert_faults(settings, FILES("gone.pem", "a.pem", "c.pem"),
                  "c0: cannot be read: No such file or directory\n"
                  "c2: comes with c.pem.ocsp, which is malformed; expected an OCSP response in DER\n"
                  "a0: cannot be read: No such file or directory\n"
                  "t0: has no ticket key in line 1; expected base64 of 80 octets\n");
    assert_faults((struct tls_server_settings){ .listener = "smtp" }, (const char *[]){ NULL },
                  "-0: expected at least one certificate\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificates),
        cmocka_unit_test(test_malformed_certificates),
        cmocka_unit_test(test_encrypted_keys),
        cmocka_unit_test(test_keys_of_every_form),
        cmocka_unit_test(test_keys_that_nobody_would_accept),
        cmocka_unit_test(test_dates_are_not_judged),
        cmocka_unit_test(test_ticket_keys),
        cmocka_unit_test(test_authorities),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_everything_is_told_at_once),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
