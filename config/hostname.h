/*
 * The host's own name, for when the configuration gives none.
 */
#ifndef WEIR_CONFIG_HOSTNAME_H
#define WEIR_CONFIG_HOSTNAME_H

#include <stdio.h>

/* The name with its domain if /etc/hosts knows one, else as the kernel has it; "localhost" if that is no
 * domain name. Asks no name server: a start or a reload must not wait for one. The caller frees. */
char *hostname_of_host(void);

/* The first name with a dot on the line of `hosts` (hosts(5)) that also carries `name`; NULL if there is
 * none. The caller frees. */
char *hostname_in_hosts(FILE *hosts, const char *name);

#endif
