/* http_curl.c - see http_curl.h. */
#include "http_curl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>

#define LIBRARY "libcurl.so.4"
#define OLDEST  0x075500	/* 7.85.0: protocols by name */

static struct {
	pthread_once_t once;
	struct http_curl curl;
	char why[240];		/* "" once it is there */
} state = { .once = PTHREAD_ONCE_INIT };

/* Functions by name, and where their pointers go. */
static const struct {
	const char *name;
	size_t offset;
} symbols[] = {
#define SYMBOL(name) { "curl_" #name, offsetof(struct http_curl, name) }
	SYMBOL(easy_init), SYMBOL(easy_cleanup), SYMBOL(easy_getinfo), SYMBOL(easy_pause), SYMBOL(easy_recv),
	SYMBOL(easy_send), SYMBOL(easy_setopt), SYMBOL(easy_strerror), SYMBOL(multi_init), SYMBOL(multi_cleanup), SYMBOL(multi_add_handle),
	SYMBOL(multi_assign), SYMBOL(multi_info_read), SYMBOL(multi_remove_handle), SYMBOL(multi_setopt),
	SYMBOL(multi_socket_action), SYMBOL(slist_append), SYMBOL(slist_free_all),
#undef SYMBOL
};

static void
load(void)
{
	void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	CURLcode (*global_init)(long);
	curl_version_info_data *(*version_info)(CURLversion);
	const curl_version_info_data *version;

	if (library == NULL) {
		snprintf(state.why, sizeof state.why, "HTTP needs libcurl: %s", dlerror());
		return;
	}
	*(void **)&global_init = dlsym(library, "curl_global_init");
	*(void **)&version_info = dlsym(library, "curl_version_info");
	for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
		void *found = dlsym(library, symbols[i].name);

		if (found == NULL || global_init == NULL || version_info == NULL) {
			snprintf(state.why, sizeof state.why, "%s is not the libcurl that is expected: %s", LIBRARY, dlerror());
			return;
		}
		*(void **)((char *)&state.curl + symbols[i].offset) = found;
	}
	version = version_info(CURLVERSION_NOW);
	if (version->version_num < OLDEST)
		snprintf(state.why, sizeof state.why, "libcurl %s is too old: 7.85 is needed", version->version);
	else if (global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		snprintf(state.why, sizeof state.why, "libcurl %s cannot be initialised", version->version);
}

const struct http_curl *
http_curl(const char **why)
{
	pthread_once(&state.once, load);
	*why = state.why;
	return state.why[0] == '\0' ? &state.curl : NULL;
}
