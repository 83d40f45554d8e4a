/*
 * dns_message.h - DNS messages: questions and updates into bytes, answers out of them.  Knows nothing of Lua.
 */
#ifndef RUNBOOK_DNS_MESSAGE_H
#define RUNBOOK_DNS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

#define DNS_ASKS_RECURSION 1	/* flags of a question */
#define DNS_ASKS_EDNS      2
#define DNS_ASKS_DNSSEC    4	/* signatures, too; with EDNS */

enum dns_opcode { DNS_QUERY = 0, DNS_UPDATE = 5 };
enum dns_section { DNS_ANSWER, DNS_AUTHORITY, DNS_ADDITIONAL, DNS_SECTIONS };

struct dns_record {
	char *name, *type, *data;	/* as zone files write them; name ends with a dot */
	uint32_t ttl;
};

struct dns_answer {
	char rcode[16];			/* "NOERROR", "NXDOMAIN"... */
	bool authoritative, truncated, recursion, authentic, edns;
	struct dns_record *records[DNS_SECTIONS];
	size_t counts[DNS_SECTIONS];
};

/* Appends a question.  False: *why says what is wrong with name or type (static). */
bool dns_write_query(struct bytes *out, uint16_t id, const char *name, const char *type, unsigned flags,
                     const char **why);

/*
 * Appends an update of a zone.  Lines, in the words of nsupdate: "prereq nxdomain NAME", "prereq yxdomain NAME",
 * "prereq nxrrset NAME TYPE", "prereq yxrrset NAME TYPE [DATA]", "update add NAME TTL TYPE DATA",
 * "update delete NAME [TYPE [DATA]]".  False: *why, and *line_at the line it is about or NULL.
 */
bool dns_write_update(struct bytes *out, uint16_t id, const char *zone, const char *lines, const char **why,
                      const char **line_at);

/* Does any of the lines change anything, or do they only ask? */
bool dns_lines_change(const char *lines);

/*
 * Adds what a message says to the answer (all zero: empty).  `records` of it at most, over all messages.
 * NULL, or what is wrong with the message (static).
 */
const char *dns_read_answer(struct dns_answer *a, const void *message, size_t length, size_t records);
void dns_answer_free(struct dns_answer *a);

#endif
