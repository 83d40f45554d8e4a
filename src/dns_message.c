/* dns_message.c - see dns_message.h.  ldns knows how the data of each type is written. */
#include "dns_message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <ldns/ldns.h>

#define CLASS_IN    1
#define CLASS_NONE  254
#define CLASS_ANY   255
#define TYPE_ANY    255
#define TYPE_OPT    41
#define UDP_SIZE    1232	/* what passes everywhere in one piece */
#define LINE_LONGEST 8192

static bool
append(struct bytes *b, unsigned n, int size)
{
	unsigned char p[4];

	for (int i = size - 1; i >= 0; i--, n >>= 8)
		p[i] = (unsigned char)n;
	return bytes_append(b, p, (size_t)size);
}

static bool
append_header(struct bytes *b, uint16_t id, unsigned flags)
{
	return append(b, id, 2) && append(b, flags, 2) && append(b, 1, 2) && append(b, 0, 2) && append(b, 0, 4);
}

static bool
append_name(struct bytes *b, const char *text)
{
	ldns_rdf *name = ldns_dname_new_frm_str(text);
	bool good = name != NULL && ldns_rdf_size(name) <= LDNS_MAX_DOMAINLEN &&
	            bytes_append(b, ldns_rdf_data(name), ldns_rdf_size(name));

	ldns_rdf_deep_free(name);
	return good;
}

/* 0: there is no such type. */
static unsigned
type_of(const char *text)
{
	return (unsigned)ldns_get_rr_type_by_name(text);
}

static void
count_record(struct bytes *b, size_t start, int section)
{
	unsigned char *p = (unsigned char *)bytes_first(b) + start + 4 + 2 * section;
	unsigned n = ((unsigned)p[0] << 8 | p[1]) + 1;

	p[0] = (unsigned char)(n >> 8);
	p[1] = (unsigned char)n;
}

bool
dns_write_query(struct bytes *out, uint16_t id, const char *name, const char *type, unsigned flags, const char **why)
{
	size_t start = bytes_length(out);
	unsigned number = type_of(type);

	*why = number == 0 ? "there is no such type" : "this is no name";
	if (number == 0 || !append_header(out, id, (flags & DNS_ASKS_RECURSION) != 0 ? 0x0100 : 0) ||
	    !append_name(out, name) || !append(out, number, 2) || !append(out, CLASS_IN, 2))
		return false;
	if ((flags & DNS_ASKS_EDNS) != 0) {
		if (!append(out, 0, 1) || !append(out, TYPE_OPT, 2) || !append(out, UDP_SIZE, 2) ||
		    !append(out, (flags & DNS_ASKS_DNSSEC) != 0 ? 0x8000 : 0, 4) || !append(out, 0, 2))
			return false;
		count_record(out, start, 3);
	}
	return true;
}

/* ---- updates ---- */

/* The word at *at, ended in place; "" when there is none. */
static char *
next_word(char **at)
{
	char *word = *at + strspn(*at, " \t"), *end = word + strcspn(word, " \t");

	*at = *end != '\0' ? end + 1 : end;
	*end = '\0';
	return word;
}

/* Appends the data of a record with its length in front. */
static const char *
append_data(struct bytes *b, const char *type, const char *data)
{
	char line[LINE_LONGEST];
	ldns_buffer *wire = ldns_buffer_new(512);
	ldns_rr *rr = NULL;
	const char *wrong = NULL;

	if (snprintf(line, sizeof line, "a. 0 IN %s %s", type, data) >= (int)sizeof line)
		wrong = "too long";
	else if (ldns_rr_new_frm_str(&rr, line, 0, NULL, NULL) != LDNS_STATUS_OK)
		wrong = "this is no data of that type";
	else if (wire == NULL || ldns_rr_rdata2buffer_wire(wire, rr) != LDNS_STATUS_OK ||
	         !append(b, (unsigned)ldns_buffer_position(wire), 2) ||
	         !bytes_append(b, ldns_buffer_begin(wire), ldns_buffer_position(wire)))
		wrong = "out of memory";
	ldns_rr_free(rr);
	ldns_buffer_free(wire);
	return wrong;
}

/* One record of an update.  data "": none. */
static const char *
append_change(struct bytes *b, const char *name, const char *type, unsigned class, unsigned ttl, const char *data)
{
	unsigned number = *type != '\0' ? type_of(type) : TYPE_ANY;

	if (number == 0)
		return "there is no such type";
	if (!append_name(b, name))
		return "this is no name";
	if (!append(b, number, 2) || !append(b, class, 2) || !append(b, ttl, 4))
		return "out of memory";
	if (*data == '\0')
		return append(b, 0, 2) ? NULL : "out of memory";
	return append_data(b, type, data);
}

static const char *
write_prerequisite(struct bytes *out, const char *what, char *rest)
{
	char *name = next_word(&rest), *type = next_word(&rest), *data = rest + strspn(rest, " \t");
	bool domain = strcmp(what, "nxdomain") == 0 || strcmp(what, "yxdomain") == 0;
	bool absent = what[0] == 'n', rrset = strcmp(what, "nxrrset") == 0 || strcmp(what, "yxrrset") == 0;

	if (!domain && !rrset)
		return "a prerequisite is nxdomain, yxdomain, nxrrset or yxrrset";
	if (domain != (*type == '\0') || (absent && *data != '\0'))
		return "too few or too many words";
	return append_change(out, name, type, absent ? CLASS_NONE : *data != '\0' ? CLASS_IN : CLASS_ANY, 0, data);
}

static const char *
write_change(struct bytes *out, const char *what, char *rest)
{
	char *name = next_word(&rest), *type, *data, *end = NULL;
	unsigned long ttl = 0;

	if (strcmp(what, "add") == 0) {
		const char *number = next_word(&rest);

		ttl = strtoul(number, &end, 10);
		if (end == number || *end != '\0' || ttl > 0x7fffffff)
			return "a TTL is seconds, up to 2147483647";
	} else if (strcmp(what, "delete") != 0) {
		return "an update is add or delete";
	}
	type = next_word(&rest);
	data = rest + strspn(rest, " \t");
	if (end != NULL && (*type == '\0' || *data == '\0'))
		return "too few words";
	return append_change(out, name, type, end != NULL ? CLASS_IN : *data != '\0' ? CLASS_NONE : CLASS_ANY,
	                     (unsigned)ttl, data);
}

/* Writes the line if it belongs to the section (1: prerequisites, 2: changes). */
static const char *
write_line(struct bytes *out, size_t start, const char *line, size_t length, int section)
{
	char copy[LINE_LONGEST], *rest = copy, *kind, *what;
	const char *wrong = NULL;

	if (length >= sizeof copy || memchr(line, '\0', length) != NULL)
		return "too long";
	memcpy(copy, line, length);
	copy[length] = '\0';
	kind = next_word(&rest);
	what = next_word(&rest);
	if (strcmp(kind, "prereq") == 0) {
		if (section != 1)
			return NULL;
		wrong = write_prerequisite(out, what, rest);
	} else if (strcmp(kind, "update") == 0) {
		if (section != 2)
			return NULL;
		wrong = write_change(out, what, rest);
	} else {
		return *kind == '\0' ? NULL : "a line begins with prereq or update";
	}
	if (wrong == NULL)
		count_record(out, start, section);
	return wrong;
}

bool
dns_write_update(struct bytes *out, uint16_t id, const char *zone, const char *lines, const char **why,
                 const char **line_at)
{
	size_t start = bytes_length(out);

	*line_at = NULL;
	*why = "the zone's name is no name";
	if (!append_header(out, id, DNS_UPDATE << 11) || !append_name(out, zone) || !append(out, LDNS_RR_TYPE_SOA, 2) ||
	    !append(out, CLASS_IN, 2))
		return false;
	for (int section = 1; section <= 2; section++) {
		for (const char *line = lines, *end; *line != '\0'; line = *end != '\0' ? end + 1 : end) {
			end = line + strcspn(line, "\n");
			*line_at = line;
			if ((*why = write_line(out, start, line, (size_t)(end - line), section)) != NULL)
				return false;
		}
	}
	*line_at = NULL;
	*why = "the update is longer than a message can be";
	return bytes_length(out) - start <= 60000;
}

bool
dns_lines_change(const char *lines)
{
	for (; lines != NULL && *lines != '\0'; lines = strchr(lines, '\n')) {
		lines += strspn(lines, "\n \t");
		if (*lines != '\0' && strncmp(lines, "prereq", 6) != 0)
			return true;
	}
	return false;
}

/* ---- answers ---- */

/* Takes the field up to the next tab; NULL when there is none. */
static char *
take_field(char **at)
{
	char *field = *at, *end = field != NULL ? strchr(field, '\t') : NULL;

	if (end == NULL)
		return NULL;
	*end = '\0';
	*at = end + 1;
	return field;
}

/* "name TTL class type data", between tabs, as ldns prints it; the data may be empty. */
static bool
fill_record(struct dns_record *r, const ldns_rr *rr)
{
	char *line = ldns_rr2str_fmt(ldns_output_format_nocomments, rr), *rest = line;
	char *name = take_field(&rest), *ttl = take_field(&rest), *class = take_field(&rest), *type = take_field(&rest);
	bool good = false;

	if (line != NULL && name != NULL && ttl != NULL && class != NULL) {
		if (type == NULL) {		/* no data, so no tab behind the type */
			type = rest;
			rest = type + strcspn(type, "\n");
			if (*rest != '\0')
				*rest++ = '\0';
		}
		rest[strcspn(rest, "\n")] = '\0';
		*r = (struct dns_record){ strdup(name), strdup(type), strdup(rest), ldns_rr_ttl(rr) };
		good = r->name != NULL && r->type != NULL && r->data != NULL;
		if (!good) {
			free(r->name);
			free(r->type);
			free(r->data);
		}
	}
	free(line);
	return good;
}

static bool
add_records(struct dns_answer *a, enum dns_section section, const ldns_rr_list *list)
{
	size_t n = ldns_rr_list_rr_count(list);
	struct dns_record *room;

	if (n == 0)
		return true;
	room = realloc(a->records[section], (a->counts[section] + n) * sizeof *room);
	if (room == NULL)
		return false;
	a->records[section] = room;
	for (size_t i = 0; i < n; i++) {
		const ldns_rr *rr = ldns_rr_list_rr(list, i);

		if (ldns_rr_get_type(rr) == LDNS_RR_TYPE_TSIG)
			continue;
		if (!fill_record(&room[a->counts[section]], rr))
			return false;
		a->counts[section]++;
	}
	return true;
}

static void
fill_rcode(struct dns_answer *a, const ldns_pkt *p)
{
	unsigned code = (unsigned)ldns_pkt_get_rcode(p) | (unsigned)ldns_pkt_edns_extended_rcode(p) << 4;
	const ldns_lookup_table *known = ldns_lookup_by_id(ldns_rcodes, (int)code);

	if (code == 16)
		snprintf(a->rcode, sizeof a->rcode, "BADVERS");
	else if (known != NULL)
		snprintf(a->rcode, sizeof a->rcode, "%s", known->name);
	else
		snprintf(a->rcode, sizeof a->rcode, "RCODE%u", code);
}

const char *
dns_read_answer(struct dns_answer *a, const void *message, size_t length, size_t records)
{
	ldns_pkt *p = NULL;
	const char *wrong = NULL;

	if (ldns_wire2pkt(&p, message, length) != LDNS_STATUS_OK)
		return "it is no DNS message";
	fill_rcode(a, p);
	a->authoritative = ldns_pkt_aa(p);
	a->truncated = ldns_pkt_tc(p);
	a->recursion = ldns_pkt_ra(p);
	a->authentic = ldns_pkt_ad(p);
	a->edns = ldns_pkt_edns(p);
	if (a->counts[DNS_ANSWER] + ldns_pkt_ancount(p) + ldns_pkt_nscount(p) + ldns_pkt_arcount(p) > records)
		wrong = "it has more records than are kept in memory";
	else if (!add_records(a, DNS_ANSWER, ldns_pkt_answer(p)) || !add_records(a, DNS_AUTHORITY, ldns_pkt_authority(p)) ||
	         !add_records(a, DNS_ADDITIONAL, ldns_pkt_additional(p)))
		wrong = "a record of it cannot be written as text";
	ldns_pkt_free(p);
	return wrong;
}

void
dns_answer_free(struct dns_answer *a)
{
	for (int section = 0; section < DNS_SECTIONS; section++) {
		for (size_t i = 0; i < a->counts[section]; i++) {
			free(a->records[section][i].name);
			free(a->records[section][i].type);
			free(a->records[section][i].data);
		}
		free(a->records[section]);
	}
	memset(a, 0, sizeof *a);
}
