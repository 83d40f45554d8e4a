/* ssh_bridge.c - gives libssh2 a socket where the connection is a stream of ours. */
#include <stdlib.h>
#include <unistd.h>

#include <sys/socket.h>

#include "ssh_session.h"

struct ssh_bridge {
	struct stream *over, *near;
	struct stream_pump *out, *in;	/* near to over, over to near */
};

void
ssh_bridge_free(struct ssh_bridge *b)
{
	if (b == NULL)
		return;
	stream_pump_free(b->out);
	stream_pump_free(b->in);
	if (b->near != NULL)
		b->near->ops->close(b->near);
	b->over->ops->close(b->over);
	free(b);
}

/* A pump that ends has half-closed its target; when it failed, the session must see an end too. */
static void
ended(void *arg)
{
	struct ssh_bridge *b = arg;

	if ((b->in != NULL && stream_pump_failed(b->in) != NULL) ||
	    (b->out != NULL && stream_pump_failed(b->out) != NULL))
		b->near->ops->half_close(b->near);
}

struct ssh_bridge *
ssh_bridge_new(uv_loop_t *loop, struct stream *over, int *fd)
{
	struct ssh_bridge *b = calloc(1, sizeof *b);
	int pair[2];

	if (b == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		over->ops->close(over);
		free(b);
		return NULL;
	}
	b->over = over;
	b->near = stream_of_descriptor(loop, pair[1], "socket pair");
	if (b->near != NULL) {
		b->out = stream_pump_start(loop, b->near, over, ended, b);
		b->in = stream_pump_start(loop, over, b->near, ended, b);
	} else {
		close(pair[1]);
	}
	if (b->out == NULL || b->in == NULL) {
		close(pair[0]);
		ssh_bridge_free(b);
		return NULL;
	}
	*fd = pair[0];
	return b;
}
