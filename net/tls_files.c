/*
 * PEM files (RFC 7468).
 *
 *     file = *( anything / certificate / key )      the first certificate is the leaf; one key, in the clear
 */
#include "net/tls_files.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (4 << 20) /* octets; the authorities of the whole world take a quarter of a million */

bool tls_fault(struct tls_faults *faults, const char *format, ...)
{
    char text[1024];
    int length = 0;
    va_list arguments;

    if (faults->beside)
        length = snprintf(text, sizeof text / 2, "comes with %s, which ", faults->beside);
    if (length >= (int)sizeof text / 2) /* a path of that length was cut */
        length = (int)sizeof text / 2 - 1;
    va_start(arguments, format);
    vsnprintf(text + length, sizeof text - (size_t)length, format, arguments);
    va_end(arguments);
    faults->any = true;
    faults->report(faults->arg, faults->culprit, faults->index, text);
    ERR_clear_error();
    return false;
}

bool tls_fault_memory(struct tls_faults *faults)
{
    faults->culprit = TLS_CULPRIT_NONE;
    faults->beside = NULL;
    return tls_fault(faults, "no TLS context can be made: out of memory");
}

const char *tls_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());

    ERR_clear_error();
    return reason ? reason : "out of memory";
}

/* Read up to `size` octets, or to the end of the file: how many, or -1. */
static ssize_t read_fully(int fd, char *buffer, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = read(fd, buffer + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* Not by stdio: its buffer would keep a copy of the key. */
static char *read_open_file(struct tls_faults *faults, int fd, size_t *size)
{
    struct stat status;
    size_t room;
    char *text;
    ssize_t n;

    if (fstat(fd, &status) != 0) {
        tls_fault(faults, "cannot be read: %s", strerror(errno));
        return NULL;
    }
    if (status.st_size >= FILE_MAX) {
        tls_fault(faults, "has %lld octets; expected at most %d", (long long)status.st_size, FILE_MAX);
        return NULL;
    }
    room = (size_t)status.st_size + 1; /* for the NUL; whatever a writer adds right now is left out */
    text = OPENSSL_malloc(room);
    if (!text) {
        tls_fault_memory(faults);
        return NULL;
    }
    n = read_fully(fd, text, room - 1);
    if (n < 0) {
        tls_fault(faults, "cannot be read: %s", strerror(errno));
        OPENSSL_clear_free(text, room);
        return NULL;
    }
    text[n] = '\0';
    *size = (size_t)n;
    return text;
}

char *tls_file_read(struct tls_faults *faults, const char *path, bool optional, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not stop a reload */
    char *text;

    if (fd < 0) {
        if (!optional || errno != ENOENT)
            tls_fault(faults, "cannot be read: %s", strerror(errno));
        return NULL;
    }
    text = read_open_file(faults, fd, size);
    close(fd);
    return text;
}

void tls_file_free(char *text, size_t size)
{
    OPENSSL_clear_free(text, size);
}

/* One block between BEGIN and END. */
struct block {
    char *name, *header;
    unsigned char *data;
    long size;
};

static void block_free(struct block *block)
{
    OPENSSL_free(block->name);
    OPENSSL_free(block->header);
    OPENSSL_clear_free(block->data, (size_t)block->size); /* it may be a key */
    *block = (struct block){ .name = NULL };
}

/* The next block: 1; 0 at the end of the file, -1 if one is malformed. */
static int block_next(BIO *bio, struct block *block)
{
    unsigned long error;

    *block = (struct block){ .name = NULL };
    ERR_clear_error(); /* what was tried in vain for the last one */
    if (PEM_read_bio(bio, &block->name, &block->header, &block->data, &block->size) == 1)
        return 1;
    error = ERR_peek_last_error();
    *block = (struct block){ .name = NULL };
    if (ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE)
        return -1;
    ERR_clear_error();
    return 0;
}

static bool is_certificate(const struct block *block)
{
    return strcmp(block->name, PEM_STRING_X509) == 0 || strcmp(block->name, PEM_STRING_X509_OLD) == 0;
}

static X509 *block_certificate(const struct block *block)
{
    const unsigned char *at = block->data;
    X509 *certificate = d2i_X509(NULL, &at, block->size);

    if (certificate && at != block->data + block->size) {
        X509_free(certificate);
        return NULL;
    }
    return certificate;
}

/* The kinds of block that hold a key. */
static bool is_key(const struct block *block)
{
    static const char end[] = "PRIVATE KEY";
    size_t length = strlen(block->name);

    return length >= sizeof end - 1 && strcmp(block->name + length - (sizeof end - 1), end) == 0;
}

static EVP_PKEY *block_key(const struct block *block)
{
    const unsigned char *at = block->data;

    if (strcmp(block->name, PEM_STRING_RSA) == 0)
        return d2i_PrivateKey(EVP_PKEY_RSA, NULL, &at, block->size);
    if (strcmp(block->name, PEM_STRING_ECPRIVATEKEY) == 0)
        return d2i_PrivateKey(EVP_PKEY_EC, NULL, &at, block->size);
    return d2i_AutoPrivateKey(NULL, &at, block->size);
}

static bool take_key(struct tls_faults *faults, struct tls_certificate *out, const struct block *block)
{
    if (strcmp(block->name, PEM_STRING_PKCS8) == 0 || strstr(block->header, "ENCRYPTED"))
        return tls_fault(faults, "holds an encrypted private key; expected one without a password");
    if (out->key)
        return tls_fault(faults, "holds more than one private key");
    out->key = block_key(block);
    if (!out->key)
        return tls_fault(faults, "holds a malformed private key: %s", tls_reason());
    return true;
}

static bool take_certificate(struct tls_faults *faults, struct tls_certificate *out,
                             const struct block *block)
{
    X509 *certificate = block_certificate(block);

    if (!certificate)
        return tls_fault(faults, "is malformed: certificate %d in it cannot be parsed: %s",
                         out->leaf ? sk_X509_num(out->chain) + 2 : 1, tls_reason());
    if (!out->leaf) {
        out->leaf = certificate;
        return true;
    }
    if (sk_X509_push(out->chain, certificate) > 0)
        return true;
    X509_free(certificate);
    return tls_fault_memory(faults);
}

static bool parse_blocks(struct tls_faults *faults, struct tls_certificate *out, BIO *bio)
{
    struct block block;
    bool good = true;
    int more;

    while (good && (more = block_next(bio, &block)) != 0) {
        if (more < 0)
            return tls_fault(faults, "is malformed: %s", tls_reason());
        if (is_certificate(&block))
            good = take_certificate(faults, out, &block);
        else if (is_key(&block))
            good = take_key(faults, out, &block);
        block_free(&block);
    }
    return good;
}

static bool check_key(struct tls_faults *faults, struct tls_certificate *out)
{
    int kind;

    if (!out->leaf)
        return tls_fault(faults, "holds no certificate; expected the chain and the key in one file");
    if (!out->key)
        return tls_fault(faults, "holds no private key; expected the chain and the key in one file");
    if (X509_check_private_key(out->leaf, out->key) != 1)
        return tls_fault(faults, "holds a private key that does not belong to its first certificate");
    /* Has OpenSSL read the extensions now, and not in the first handshake, when several threads would. */
    (void)X509_check_purpose(out->leaf, -1, 0);
    kind = EVP_PKEY_get_base_id(out->key);
    out->rsa = kind == EVP_PKEY_RSA || kind == EVP_PKEY_RSA_PSS;
    if (!out->rsa && kind != EVP_PKEY_EC && kind != EVP_PKEY_ED25519 && kind != EVP_PKEY_ED448)
        return tls_fault(faults, "holds a key of the kind %s; expected RSA, ECDSA or Ed25519",
                         OBJ_nid2sn(kind));
    return true;
}

bool tls_certificate_read(struct tls_faults *faults, const char *path, struct tls_certificate *out)
{
    size_t size;
    char *text = tls_file_read(faults, path, false, &size);
    bool good;
    BIO *bio;

    *out = (struct tls_certificate){ .chain = NULL };
    if (!text)
        return false;
    bio = BIO_new_mem_buf(text, (int)size);
    out->chain = sk_X509_new_null();
    if (bio && out->chain)
        good = parse_blocks(faults, out, bio) && check_key(faults, out);
    else
        good = tls_fault_memory(faults);
    BIO_free(bio);
    tls_file_free(text, size);
    return good;
}

void tls_certificate_free(struct tls_certificate *certificate)
{
    X509_free(certificate->leaf);
    sk_X509_pop_free(certificate->chain, X509_free);
    EVP_PKEY_free(certificate->key);
    OPENSSL_free(certificate->staple.response);
}

static bool add_authorities(struct tls_faults *faults, BIO *bio, X509_STORE *store)
{
    struct block block;
    int more, found = 0;

    while ((more = block_next(bio, &block)) != 0) {
        X509 *certificate;
        if (more < 0)
            return tls_fault(faults, "is malformed: %s", tls_reason());
        if (!is_certificate(&block)) {
            block_free(&block);
            continue;
        }
        certificate = block_certificate(&block);
        block_free(&block);
        if (!certificate || X509_STORE_add_cert(store, certificate) != 1) {
            X509_free(certificate);
            return tls_fault(faults, "is malformed: certificate %d in it cannot be parsed: %s", found + 1,
                             tls_reason());
        }
        X509_free(certificate);
        found++;
    }
    return found > 0 || tls_fault(faults, "holds no certificate");
}

bool tls_authorities_parse(struct tls_faults *faults, const char *text, size_t size, X509_STORE *store)
{
    BIO *bio = BIO_new_mem_buf(text, (int)size);
    bool good = bio ? add_authorities(faults, bio, store) : tls_fault_memory(faults);

    BIO_free(bio);
    return good;
}
