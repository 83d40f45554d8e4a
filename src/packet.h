/* packet.h - the fields that the protocols of ssh are made of: numbers and counted strings. */
#ifndef RUNBOOK_PACKET_H
#define RUNBOOK_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

/* Reads fields one after the other; `bad` once one did not fit, and everything after it is empty. */
struct packet_reader {
	const unsigned char *at;
	size_t left;
	bool bad;
};

uint8_t packet_u8(struct packet_reader *r);
uint32_t packet_u32(struct packet_reader *r);
uint64_t packet_u64(struct packet_reader *r);
/* Points into what is read. */
const char *packet_string(struct packet_reader *r, size_t *length);

/* False when memory ran out. */
bool packet_put_u8(struct bytes *b, uint8_t n);
bool packet_put_u32(struct bytes *b, uint32_t n);
bool packet_put_u64(struct bytes *b, uint64_t n);
bool packet_put_string(struct bytes *b, const void *text, size_t length);

#endif
