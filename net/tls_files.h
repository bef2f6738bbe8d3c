/* The files of a TLS context, read whole and checked, and how their mistakes are told. */
#ifndef WEIR_NET_TLS_FILES_H
#define WEIR_NET_TLS_FILES_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

#include "net/tls.h"

/* Where mistakes go; `culprit` and `index` are set before each file is read. */
struct tls_faults {
    tls_report *report;
    void *arg;
    enum tls_culprit culprit;
    size_t index;
    bool any;
};

/* Report a mistake. `format` continues a sentence that begins with the file's name. Returns false. */
bool tls_fault(struct tls_faults *faults, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Why OpenSSL refused ("ee key too small"); its queue of errors is empty afterwards. */
const char *tls_reason(void);

/* A file's octets, with a NUL behind them that is not counted. NULL after a report, and if there is no such
 * file but it is `optional`. */
char *tls_file_read(struct tls_faults *faults, const char *path, bool optional, size_t *size);
/* Wipes them. */
void tls_file_free(char *text, size_t size);

/* What a certificate's file holds. */
struct tls_certificate {
    X509 *leaf;
    STACK_OF(X509) * chain; /* behind the leaf */
    EVP_PKEY *key;
    bool rsa;
};

/* Fill *out, or report what is wrong. In either case the caller frees it. */
bool tls_certificate_read(struct tls_faults *faults, const char *path, struct tls_certificate *out);
void tls_certificate_free(struct tls_certificate *certificate);

/* The certificates of `text`, added to the store. */
bool tls_authorities_parse(struct tls_faults *faults, const char *text, size_t size, X509_STORE *store);

#endif
