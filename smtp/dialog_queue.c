/*
 * What goes out of a dialog: pieces of output, actions, and the queue of commands for the backend (see
 * dialog_internal.h).
 */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/dialog_internal.h"

/* --- outputs and actions --- */

void output_range(struct smtp_output *out, const char *data, size_t size)
{
    struct iovec *last = out->n ? &out->parts[out->n - 1] : NULL;

    if (!size)
        return;
    if (last && (const char *)last->iov_base + last->iov_len == data) {
        last->iov_len += size;
        return;
    }
    assert(out->n < SMTP_OUTPUT_PARTS);
    out->parts[out->n].iov_base = (void *)data;
    out->parts[out->n].iov_len = size;
    out->n++;
}

char *output_reserve(struct smtp_output *out, size_t size)
{
    assert(out->used + size <= SMTP_OUTPUT_ARENA);
    return out->arena + out->used;
}

void output_commit(struct smtp_output *out, size_t size)
{
    output_range(out, out->arena + out->used, size);
    out->used += size;
}

void output_copy(struct smtp_output *out, const char *data, size_t size)
{
    memcpy(output_reserve(out, size), data, size);
    output_commit(out, size);
}

/* Room for whatever one step may say: one reply, or the few lines of a failing pipeline, and some pieces. */
bool wire_has_room(const struct smtp_wire *wire)
{
    return wire->client.n < SMTP_OUTPUT_PARTS - 4 && wire->backend.n < SMTP_OUTPUT_PARTS - 4 &&
           SMTP_OUTPUT_ARENA - wire->client.used >= SMTP_REPLY_MAX + PIPELINE_MAX * sizeof REPLY_LOST &&
           SMTP_OUTPUT_ARENA - wire->backend.used >= SMTP_LINE_MAX;
}

void output_clear(struct smtp_output *out)
{
    out->n = 0;
    out->used = 0;
}

void smtp_wire_flushed(struct smtp_wire *wire)
{
    output_clear(&wire->client);
    output_clear(&wire->backend);
}

struct smtp_action_arg *act(struct smtp_dialog *d, enum smtp_action action)
{
    struct smtp_wire *wire = d->wire;

    assert(wire->n_actions < SMTP_ACTIONS_MAX);
    struct smtp_action_arg *arg = &wire->actions[wire->n_actions++];
    memset(arg, 0, sizeof *arg);
    arg->action = action;
    return arg;
}

/* --- the queue of commands --- */

bool exchange_begin(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    if (x)
        return true;
    x = d->exchange = malloc(sizeof *x);
    if (x)
        memset(x, 0, offsetof(struct smtp_exchange, held));
    return x;
}

bool queue_command(struct smtp_dialog *d, enum pending_kind kind, enum smtp_verb verb, struct smtp_span one,
                   struct smtp_span two, struct smtp_span three)
{
    struct smtp_exchange *x = d->exchange;
    size_t blank = three.size ? 1 : 0;
    size_t size = one.size + two.size + blank + three.size + 2;
    struct pending *entry;
    char *p;

    if (x->count == PIPELINE_MAX)
        return false;
    if (PIPELINE_TEXT - x->text_end < size) {
        /* What is on its way out may point into the text: it can be moved only when all has been written. */
        if (d->wire->backend.n || PIPELINE_TEXT - (x->text_end - x->text_start) < size)
            return false;
        memmove(x->text, x->text + x->text_start, x->text_end - x->text_start);
        x->text_end -= x->text_start;
        x->text_start = 0;
    }
    p = x->text + x->text_end;
    memcpy(p, one.data, one.size);
    p += one.size;
    if (two.size)
        memcpy(p, two.data, two.size);
    p += two.size;
    if (blank)
        *p++ = ' ';
    if (three.size)
        memcpy(p, three.data, three.size);
    p += three.size;
    memcpy(p, "\r\n", 2);
    x->text_end += size;
    entry = &x->queue[(x->head + x->count++) % PIPELINE_MAX];
    *entry = (struct pending){ .kind = (uint8_t)kind, .verb = (uint8_t)verb, .size = (uint16_t)size };
    if (kind == PENDING_FORWARD)
        x->forwards++;
    d->serial++;
    return true;
}

void queue_pump(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;
    size_t offset = x->text_start;

    if (x->backend_state != SMTP_BACKEND_READY)
        return;
    for (unsigned i = 0; i < x->sent; i++)
        offset += x->queue[(x->head + i) % PIPELINE_MAX].size;
    while (x->sent < x->count && (x->sent == 0 || (x->backend.flags & SMTP_CAP_PIPELINING))) {
        struct pending *entry = &x->queue[(x->head + x->sent) % PIPELINE_MAX];

        output_range(&d->wire->backend, x->text + offset, entry->size);
        offset += entry->size;
        entry->sent = d->tick;
        x->sent++;
    }
}

struct pending queue_pop(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;
    struct pending entry = x->queue[x->head];

    x->head = (x->head + 1) % PIPELINE_MAX;
    x->count--;
    if (x->sent)
        x->sent--;
    if (entry.kind == PENDING_FORWARD)
        x->forwards--;
    x->text_start += entry.size;
    if (!x->count)
        x->text_start = x->text_end = 0;
    d->serial++;
    return entry;
}

void queue_clear(struct smtp_exchange *x)
{
    x->head = x->count = x->sent = x->forwards = 0;
    x->text_start = x->text_end = 0;
}
