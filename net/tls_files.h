/* The files of a TLS context, read whole and checked, and how their mistakes are told. */
#ifndef WEIR_NET_TLS_FILES_H
#define WEIR_NET_TLS_FILES_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/tls.h"

/* Where mistakes go; `culprit` and `index` are set before each file is read. */
struct tls_faults {
    tls_report *report;
    void *arg;
    enum tls_culprit culprit;
    size_t index;
    const char *beside; /* the file meant is not the culprit but lies beside it; NULL: the culprit */
    bool any;
};

/* Report a mistake. `format` continues a sentence that begins with the file's name. Returns false. */
bool tls_fault(struct tls_faults *faults, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same for what no file is to blame for. */
bool tls_fault_memory(struct tls_faults *faults);
/* Why OpenSSL refused ("ee key too small"); its queue of errors is empty afterwards. */
const char *tls_reason(void);

/* A file's octets, with a NUL behind them that is not counted. NULL after a report, and if there is no such
 * file but it is `optional`. */
char *tls_file_read(struct tls_faults *faults, const char *path, bool optional, size_t *size);
/* Wipes them. */
void tls_file_free(char *text, size_t size);

/* An OCSP response (RFC 6960). */
struct tls_staple {
    unsigned char *response; /* DER, OPENSSL_malloc()ed; NULL: none */
    size_t size;
    int64_t until; /* its nextUpdate, in seconds since 1970; INT64_MAX: it names none */
};

/* What a certificate's file holds, and the response beside it. */
struct tls_certificate {
    X509 *leaf;
    STACK_OF(X509) * chain; /* behind the leaf */
    EVP_PKEY *key;
    bool rsa;
    struct tls_staple staple;
};

/* Fill *out, or report what is wrong. In either case the caller frees it. */
bool tls_certificate_read(struct tls_faults *faults, const char *path, struct tls_certificate *out);
void tls_certificate_free(struct tls_certificate *certificate);

/* Read the response beside certificate->leaf's file; having none is fine. */
bool tls_staple_read(struct tls_faults *faults, const char *path, struct tls_certificate *certificate);

/* The certificates of `text`, added to the store. */
bool tls_authorities_parse(struct tls_faults *faults, const char *text, size_t size, X509_STORE *store);

/* The keys that session tickets are encrypted with (RFC 5077 §4). */
struct tls_tickets;

/* NULL after a report. */
struct tls_tickets *tls_tickets_read(struct tls_faults *faults, const char *path);
/* Wipes them. */
void tls_tickets_free(struct tls_tickets *tickets);
/* Prepare for the ticket that is to be encrypted or, from `name` and `iv`, decrypted. For arguments and
 * result see SSL_CTX_set_tlsext_ticket_key_evp_cb(3). */
int tls_tickets_apply(const struct tls_tickets *tickets, SSL *ssl, unsigned char name[16],
                      unsigned char iv[EVP_MAX_IV_LENGTH], EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                      int encrypt);

#endif
