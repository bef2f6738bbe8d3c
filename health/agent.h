/*
 * Agents: programs beside the relays that say how much these can take, asked as often as the relay is
 * checked.
 *
 *     ask ──▶ in line ──▶ connected ── first line ──▶ heard ──▶ health_order(), judge_told() ─┐
 *      ▲         └─ no address     └─ refused, reset, too late, nothing, garbage: no change ─────┤
 *      └───────────────────────────── the pool's health interval ────────────────────────────────┘
 *
 * An agent that can't be reached or understood is no failure of the relay, and takes no word back: what it
 * said last holds until it says another, as with HAProxy. It is asked in MAINT too, or it could never take
 * that back. Its word goes with the option: a reload that takes it out or names another agent withdraws it.
 */
#ifndef WEIR_HEALTH_AGENT_H
#define WEIR_HEALTH_AGENT_H

struct agent;
struct health;
struct record;
struct farm_given;

void agents_init(struct health *health);
/* Take over what the record's farm says of it. */
void agent_configure(struct record *record, const struct farm_given *given);
/* Ask no more; what was said stays. */
void agent_stop(struct record *record);
void agent_free(struct record *record);

#endif
