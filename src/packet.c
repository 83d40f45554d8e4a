/* packet.c - the fields that the protocols of ssh are made of: numbers and counted strings. */
#include "packet.h"

static uint64_t
number(struct packet_reader *r, size_t width)
{
	uint64_t n = 0;

	if (r->bad || r->left < width) {
		r->bad = true;
		r->left = 0;
		return 0;
	}
	for (size_t i = 0; i < width; i++)
		n = n << 8 | r->at[i];
	r->at += width;
	r->left -= width;
	return n;
}

uint8_t
packet_u8(struct packet_reader *r)
{
	return (uint8_t)number(r, 1);
}

uint32_t
packet_u32(struct packet_reader *r)
{
	return (uint32_t)number(r, 4);
}

uint64_t
packet_u64(struct packet_reader *r)
{
	return number(r, 8);
}

const char *
packet_string(struct packet_reader *r, size_t *length)
{
	const char *text;

	*length = packet_u32(r);
	if (r->bad || *length > r->left) {
		r->bad = true;
		r->left = 0;
		*length = 0;
		return "";
	}
	text = (const char *)r->at;
	r->at += *length;
	r->left -= *length;
	return text;
}

static bool
put(struct bytes *b, uint64_t n, size_t width)
{
	unsigned char raw[8];

	for (size_t i = 0; i < width; i++)
		raw[i] = (unsigned char)(n >> (8 * (width - 1 - i)));
	return bytes_append(b, raw, width);
}

bool
packet_put_u8(struct bytes *b, uint8_t n)
{
	return put(b, n, 1);
}

bool
packet_put_u32(struct bytes *b, uint32_t n)
{
	return put(b, n, 4);
}

bool
packet_put_u64(struct bytes *b, uint64_t n)
{
	return put(b, n, 8);
}

bool
packet_put_string(struct bytes *b, const void *text, size_t length)
{
	return packet_put_u32(b, (uint32_t)length) && bytes_append(b, text, length);
}
