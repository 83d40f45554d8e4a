/* http_easy.c - see http_easy.h. */
#include "http_easy.h"

#include <errno.h>
#include <string.h>

#define KEEPALIVE 15L	/* seconds of silence, and between questions whether it is there */

#define SET(option, value) (ok = curl->easy_setopt(easy, (option), (value)) == CURLE_OK && ok)

static bool
set_blob(const struct http_curl *curl, CURL *easy, CURLoption option, const char *pem, size_t length)
{
	struct curl_blob blob = { .data = (void *)pem, .len = length, .flags = CURL_BLOB_COPY };

	return curl->easy_setopt(easy, option, &blob) == CURLE_OK;
}

static bool
set_tls(const struct http_curl *curl, CURL *easy, const struct http_options *o)
{
	bool ok = true;

	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (o->insecure) {
		SET(CURLOPT_SSL_VERIFYPEER, 0L);
		SET(CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (o->ca != NULL) {		/* this one and no other */
		ok = set_blob(curl, easy, CURLOPT_CAINFO_BLOB, o->ca, o->ca_length) && ok;
		SET(CURLOPT_CAPATH, NULL);
	}
	if (o->certificate != NULL) {
		SET(CURLOPT_SSLCERTTYPE, "PEM");
		SET(CURLOPT_SSLKEYTYPE, "PEM");
		ok = set_blob(curl, easy, CURLOPT_SSLCERT_BLOB, o->certificate, o->certificate_length) && ok;
		ok = set_blob(curl, easy, CURLOPT_SSLKEY_BLOB, o->key != NULL ? o->key : o->certificate,
		              o->key != NULL ? o->key_length : o->certificate_length) && ok;
	}
	return ok;
}

bool
http_set_way(const struct http_curl *curl, CURL *easy, const struct http_options *o, struct curl_slist **connect_to)
{
	bool ok = set_tls(curl, easy, o);

	if (o->proxy != NULL)
		SET(CURLOPT_PROXY, o->proxy);
	if (o->plain)
		SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	if (o->connect_to != NULL) {
		ok = (*connect_to = curl->slist_append(NULL, o->connect_to)) != NULL && ok;
		SET(CURLOPT_CONNECT_TO, *connect_to);
	}
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_TCP_KEEPIDLE, KEEPALIVE);
	SET(CURLOPT_TCP_KEEPINTVL, KEEPALIVE);
	return ok;
}

static const char *
code_of_connect(const struct http_curl *curl, CURL *easy)
{
	long error = 0, proxied = 0;

	curl->easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, &proxied);
	if (proxied == 407)
		return "EAUTH";
	curl->easy_getinfo(easy, CURLINFO_OS_ERRNO, &error);
	switch (error) {
	case ECONNREFUSED: return "ECONNREFUSED";
	case EHOSTUNREACH: return "EHOSTUNREACH";
	case ENETUNREACH: return "ENETUNREACH";
	default: return "ECONNECT";
	}
}

bool
http_never_sent(const struct http_curl *curl, CURL *easy)
{
	long sent = 0;

	curl->easy_getinfo(easy, CURLINFO_REQUEST_SIZE, &sent);
	return sent == 0;
}

const char *
http_failure(const struct http_curl *curl, CURL *easy, CURLcode result, const char *error)
{
	long proxied = 0;

	switch (result) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return "ERESOLVE";
	case CURLE_COULDNT_CONNECT:
	case CURLE_PROXY:
		return code_of_connect(curl, easy);
	case CURLE_OPERATION_TIMEDOUT:
		return http_never_sent(curl, easy) ? "ECONNECT" : "ETIMEDOUT";
	case CURLE_SSL_CONNECT_ERROR:
		return strstr(error, "error:") != NULL ? "ETLS" : "EHANDSHAKE";	/* OpenSSL's, or the socket's */
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return "ETLS";
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
		curl->easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, &proxied);
		if (proxied >= 400)	/* the proxy would not */
			return code_of_connect(curl, easy);
		/* with TLS 1.3 a certificate of ours is refused only after the handshake */
		return strstr(error, "alert") != NULL ? "ETLS" : "ELOST";
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
	case CURLE_SEND_FAIL_REWIND:
		return "ELOST";
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_BAD_FUNCTION_ARGUMENT:
		return "EINVAL";
	case CURLE_OUT_OF_MEMORY:
		return "ENOMEM";
	default:
		return "EPROTO";
	}
}
