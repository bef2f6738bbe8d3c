/*
 * Session tickets (RFC 5077 §4, RFC 8446 §4.6.1) under keys that several instances share.
 *
 *     file = *( comment / blank / key )
 *     key  = base64 of  name[16]  key of HMAC-SHA256[32]  key of AES-256-CBC[32]
 */
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "net/tls_files.h"

#define NAME_SIZE    16
#define SECRET_SIZE  32
#define KEY_SIZE     (NAME_SIZE + SECRET_SIZE + SECRET_SIZE)
#define ENCODED_SIZE 108 /* base64 of a key, its last octet '=' */
#define BASE64       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
#define BLANK        " \t\r\v\f"

struct ticket_key {
    unsigned char name[NAME_SIZE];
    unsigned char mac[SECRET_SIZE];
    unsigned char cipher[SECRET_SIZE];
    unsigned line; /* where it stands in the file */
};

struct tls_tickets {
    EVP_CIPHER *cipher; /* fetched once: looking it up takes locks */
    size_t n;
    struct ticket_key keys[];
};

/* One key from the `length` octets of a line. */
static bool decode_key(struct tls_faults *faults, const char *line, size_t length, struct ticket_key *key)
{
    unsigned char octets[ENCODED_SIZE / 4 * 3];

    if (length != ENCODED_SIZE || strspn(line, BASE64) != ENCODED_SIZE - 1 || line[ENCODED_SIZE - 1] != '=')
        return tls_fault(faults, "has no ticket key in line %u; expected base64 of %d octets", key->line,
                         KEY_SIZE);
    EVP_DecodeBlock(octets, (const unsigned char *)line, ENCODED_SIZE);
    memcpy(key->name, octets, NAME_SIZE);
    memcpy(key->mac, octets + NAME_SIZE, SECRET_SIZE);
    memcpy(key->cipher, octets + NAME_SIZE + SECRET_SIZE, SECRET_SIZE);
    OPENSSL_cleanse(octets, sizeof octets);
    return true;
}

static const struct ticket_key *find_key(const struct tls_tickets *tickets, const unsigned char *name)
{
    for (size_t i = 0; i < tickets->n; i++)
        if (memcmp(tickets->keys[i].name, name, NAME_SIZE) == 0)
            return &tickets->keys[i];
    return NULL;
}

/* Every wrong line is reported. There is room for as many keys as there are lines. */
static void parse_keys(struct tls_faults *faults, const char *text, struct tls_tickets *tickets)
{
    unsigned number = 1;

    for (const char *line = text; *line; number++) {
        struct ticket_key *key = &tickets->keys[tickets->n];
        const struct ticket_key *same;
        const char *next = line + strcspn(line, "\n");
        size_t length;

        line += strspn(line, BLANK);
        length = (size_t)(next - line);
        while (length > 0 && strchr(BLANK, line[length - 1]))
            length--;
        key->line = number;
        if (length > 0 && *line != '#' && decode_key(faults, line, length, key)) {
            same = find_key(tickets, key->name);
            if (same)
                tls_fault(faults, "has in line %u a ticket key of the same name as in line %u", number,
                          same->line);
            tickets->n++;
        }
        line = *next ? next + 1 : next;
    }
    if (tickets->n == 0 && !faults->any)
        tls_fault(faults, "holds no ticket key; expected a line with base64 of %d octets", KEY_SIZE);
}

struct tls_tickets *tls_tickets_read(struct tls_faults *faults, const char *path)
{
    struct tls_tickets *tickets;
    bool any = faults->any;
    size_t size, lines = 1;
    char *text = tls_file_read(faults, path, false, &size);

    if (!text)
        return NULL;
    for (size_t i = 0; i < size; i++) {
        lines += text[i] == '\n';
        text[i] = text[i] ? text[i] : '?'; /* not the end of the text, and in no key */
    }
    tickets = OPENSSL_zalloc(sizeof *tickets + lines * sizeof tickets->keys[0]);
    if (tickets)
        tickets->cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    if (tickets && tickets->cipher) {
        faults->any = false;
        parse_keys(faults, text, tickets);
    } else {
        tls_fault_memory(faults);
    }
    tls_file_free(text, size);
    if (faults->any) {
        tls_tickets_free(tickets);
        tickets = NULL;
    }
    faults->any |= any;
    return tickets;
}

void tls_tickets_free(struct tls_tickets *tickets)
{
    if (!tickets)
        return;
    EVP_CIPHER_free(tickets->cipher);
    OPENSSL_clear_free(tickets, sizeof *tickets + tickets->n * sizeof tickets->keys[0]);
}

static bool set_mac(EVP_MAC_CTX *mac, const struct ticket_key *key)
{
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)key->mac, sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_end(),
    };

    return EVP_MAC_CTX_set_params(mac, parameters) == 1;
}

int tls_tickets_apply(const struct tls_tickets *tickets, SSL *ssl, unsigned char name[16],
                      unsigned char iv[EVP_MAX_IV_LENGTH], EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                      int encrypt)
{
    const struct ticket_key *first = &tickets->keys[0], *key = first;

    if (encrypt) {
        memcpy(name, key->name, NAME_SIZE);
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(tickets->cipher)) != 1)
            return -1;
        return EVP_EncryptInit_ex2(cipher, tickets->cipher, key->cipher, iv, NULL) == 1 && set_mac(mac, key)
                   ? 1
                   : -1;
    }
    key = find_key(tickets, name);
    if (!key)
        return 0;
    if (EVP_DecryptInit_ex2(cipher, tickets->cipher, key->cipher, iv, NULL) != 1 || !set_mac(mac, key))
        return -1;
    /* 2: and give a new one. Tickets of TLS 1.3 are meant to be used once (RFC 8446 §C.4). */
    return key == first && SSL_version(ssl) < TLS1_3_VERSION ? 1 : 2;
}
