/* dns_lookup.c - the addresses of a host; see dns.h. */
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "dns.h"

struct dns_lookup {
	uv_getaddrinfo_t request;
	struct addrinfo *found;
	int error;
	bool over, unwanted;
	void (*done)(void *arg);
	void *arg;
};

static void
resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
	struct dns_lookup *l = request->data;

	l->over = true;
	l->error = status;
	l->found = found;
	if (l->unwanted)
		dns_lookup_free(l);
	else
		l->done(l->arg);
}

struct dns_lookup *
dns_lookup_start(uv_loop_t *loop, const char *host, void (*done)(void *arg), void *arg)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct dns_lookup *l = calloc(1, sizeof *l);

	if (l == NULL)
		return NULL;
	l->done = done;
	l->arg = arg;
	l->request.data = l;
	if (uv_getaddrinfo(loop, &l->request, resolved, host, NULL, &hints) != 0) {
		free(l);
		return NULL;
	}
	return l;
}

int
dns_lookup_error(const struct dns_lookup *l)
{
	return l->error;
}

bool
dns_lookup_address(const struct dns_lookup *l, size_t n, char *text, size_t room)
{
	const struct addrinfo *a = l->found;

	while (a != NULL && n-- > 0)
		a = a->ai_next;
	return a != NULL && getnameinfo(a->ai_addr, a->ai_addrlen, text, (socklen_t)room, NULL, 0, NI_NUMERICHOST) == 0;
}

void
dns_lookup_free(struct dns_lookup *l)
{
	if (l == NULL)
		return;
	if (!l->over) {		/* the thread pool has it until it is over */
		l->unwanted = true;
		uv_cancel((uv_req_t *)&l->request);
		return;
	}
	uv_freeaddrinfo(l->found);
	free(l);
}
