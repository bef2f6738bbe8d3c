/* OCSP responses that lie beside certificates (RFC 6960), to be stapled (RFC 6066 §8, RFC 8446 §4.4.2.1). */
#include <errno.h>
#include <limits.h>
#include <openssl/ocsp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "net/tls_files.h"

/* Whether `id` is that of the certificate. Without its issuer the issuer's key cannot be compared, only its
 * name. */
static bool is_about(const OCSP_CERTID *id, const struct tls_certificate *certificate)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size;
    X509 *issuer = sk_X509_num(certificate->chain) > 0 ? sk_X509_value(certificate->chain, 0) : NULL;
    ASN1_OCTET_STRING *issuer_name, *issuer_key;
    ASN1_INTEGER *serial;
    ASN1_OBJECT *algorithm;
    const EVP_MD *md;

    if (OCSP_id_get0_info(&issuer_name, &algorithm, &issuer_key, &serial, (OCSP_CERTID *)id) != 1 ||
        ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(certificate->leaf)) != 0)
        return false;
    md = EVP_get_digestbyobj(algorithm);
    if (!md || X509_NAME_digest(X509_get_issuer_name(certificate->leaf), md, digest, &size) != 1 ||
        ASN1_STRING_length(issuer_name) != (int)size ||
        memcmp(ASN1_STRING_get0_data(issuer_name), digest, size) != 0)
        return false;
    if (!issuer)
        return true;
    return X509_pubkey_digest(issuer, md, digest, &size) == 1 &&
           ASN1_STRING_length(issuer_key) == (int)size &&
           memcmp(ASN1_STRING_get0_data(issuer_key), digest, size) == 0;
}

static int64_t valid_until(OCSP_SINGLERESP *single)
{
    ASN1_GENERALIZEDTIME *next = NULL;
    struct tm tm;

    OCSP_single_get0_status(single, NULL, NULL, NULL, &next);
    if (!next)
        return INT64_MAX;
    if (ASN1_TIME_to_tm(next, &tm) != 1)
        return 0;
    return timegm(&tm);
}

static bool find_single(struct tls_faults *faults, OCSP_BASICRESP *basic, struct tls_certificate *certificate)
{
    for (int i = 0; i < OCSP_resp_count(basic); i++) {
        OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
        if (!is_about(OCSP_SINGLERESP_get0_id(single), certificate))
            continue;
        certificate->staple.until = valid_until(single);
        return true;
    }
    return tls_fault(faults, "is about another certificate");
}

static bool check_response(struct tls_faults *faults, struct tls_certificate *certificate)
{
    const unsigned char *at = certificate->staple.response;
    const unsigned char *end = at + certificate->staple.size;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &at, (long)certificate->staple.size);
    OCSP_BASICRESP *basic = NULL;
    bool good;

    if (!response || at != end) {
        good = tls_fault(faults, "is malformed; expected an OCSP response in DER");
    } else if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL) {
        good = tls_fault(faults, "says \"%s\"; expected a successful OCSP response",
                         OCSP_response_status_str(OCSP_response_status(response)));
    } else {
        basic = OCSP_response_get1_basic(response);
        good = basic ? find_single(faults, basic, certificate)
                     : tls_fault(faults, "is malformed; expected a basic OCSP response: %s", tls_reason());
    }
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    return good;
}

bool tls_staple_read(struct tls_faults *faults, const char *path, struct tls_certificate *certificate)
{
    char beside[PATH_MAX];
    bool any = faults->any, good = true;
    size_t size = 0;
    char *text;

    /* A name so long that only the response's cannot exist has no response. */
    if (snprintf(beside, sizeof beside, "%s.ocsp", path) >= (int)sizeof beside)
        return true;
    faults->beside = beside;
    faults->any = false;
    text = tls_file_read(faults, beside, true, &size);
    if (text) {
        certificate->staple.response = (unsigned char *)text;
        certificate->staple.size = size;
        good = check_response(faults, certificate);
    } else if (faults->any) {
        good = false;
    }
    faults->any |= any;
    faults->beside = NULL;
    return good;
}
