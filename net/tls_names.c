/* A sorted table of names. */
#include "net/tls_names.h"

#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_LENGTH 255 /* RFC 1035 §2.3.4 */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static bool add(struct tls_names *names, const struct tls_certificate *certificate, const char *text,
                size_t length)
{
    struct tls_name *name;

    if (names->n == names->room) {
        size_t room = names->room ? names->room * 2 : 8;
        struct tls_name *list = reallocarray(names->list, room, sizeof *list);
        if (!list)
            return false;
        names->list = list;
        names->room = room;
    }
    name = &names->list[names->n];
    *name = (struct tls_name){ .text = strndup(text, length), .order = names->n };
    if (!name->text)
        return false;
    for (char *c = name->text; *c; c++)
        *c = lower(*c);
    if (certificate->rsa)
        name->rsa = certificate;
    else
        name->other = certificate;
    names->n++;
    return true;
}

/* A name with a NUL in it, or one that is too long, is none. */
static bool add_string(struct tls_names *names, const struct tls_certificate *certificate,
                       const ASN1_STRING *string)
{
    const char *text = (const char *)ASN1_STRING_get0_data(string);
    size_t length = (size_t)ASN1_STRING_length(string);

    if (length == 0 || length > NAME_MAX_LENGTH || memchr(text, '\0', length))
        return true;
    return add(names, certificate, text, length);
}

static bool add_common_name(struct tls_names *names, const struct tls_certificate *certificate)
{
    const X509_NAME *subject = X509_get_subject_name(certificate->leaf);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

    if (at < 0)
        return true;
    return add_string(names, certificate, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

bool tls_names_add(struct tls_names *names, const struct tls_certificate *certificate)
{
    GENERAL_NAMES *alternatives = X509_get_ext_d2i(certificate->leaf, NID_subject_alt_name, NULL, NULL);
    bool any = false, good = true;

    for (int i = 0; good && i < sk_GENERAL_NAME_num(alternatives); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(alternatives, i);
        if (name->type != GEN_DNS)
            continue;
        any = true;
        good = add_string(names, certificate, name->d.dNSName);
    }
    GENERAL_NAMES_free(alternatives);
    return good && (any || add_common_name(names, certificate));
}

static int compare(const void *a, const void *b)
{
    const struct tls_name *one = a, *two = b;
    int order = strcmp(one->text, two->text);

    return order ? order : (one->order > two->order) - (one->order < two->order);
}

void tls_names_complete(struct tls_names *names)
{
    size_t kept = 0;

    if (names->n == 0)
        return;
    qsort(names->list, names->n, sizeof names->list[0], compare);
    for (size_t i = 1; i < names->n; i++) {
        struct tls_name *last = &names->list[kept], *name = &names->list[i];
        if (strcmp(last->text, name->text) != 0) {
            names->list[++kept] = *name;
            continue;
        }
        if (!last->rsa)
            last->rsa = name->rsa;
        if (!last->other)
            last->other = name->other;
        free(name->text);
    }
    names->n = kept + 1;
}

static int compare_text(const void *text, const void *name)
{
    return strcmp(text, ((const struct tls_name *)name)->text);
}

static const struct tls_name *find(const struct tls_names *names, const char *text)
{
    return bsearch(text, names->list, names->n, sizeof names->list[0], compare_text);
}

const struct tls_name *tls_names_find(const struct tls_names *names, const char *host)
{
    char text[NAME_MAX_LENGTH + 1];
    size_t length = strlen(host);
    const struct tls_name *found;
    char *dot;

    if (length > NAME_MAX_LENGTH || names->n == 0)
        return NULL;
    for (size_t i = 0; i <= length; i++)
        text[i] = lower(host[i]);
    if (length > 1 && text[length - 1] == '.') /* some clients send the root's dot */
        text[length - 1] = '\0';
    found = find(names, text);
    dot = strchr(text, '.');
    if (found || !dot || dot == text)
        return found;
    dot[-1] = '*';
    return find(names, dot - 1);
}

void tls_names_free(struct tls_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->list[i].text);
    free(names->list);
    *names = (struct tls_names){ .list = NULL };
}
