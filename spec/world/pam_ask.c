/*
 * pam_ask.c - a PAM module for the specs' servers: asks one question and takes one answer.
 *
 *     auth requisite /run/world/pam_ask.so [echo] [info=TEXT] PROMPT ANSWER       ("_" stands for a space)
 */
#include <stdlib.h>
#include <string.h>

#include <security/pam_ext.h>
#include <security/pam_modules.h>

static char *
spaced(const char *word)
{
	char *text = strdup(word);

	for (char *c = text; c != NULL && *c != '\0'; c++)
		if (*c == '_')
			*c = ' ';
	return text;
}

PAM_EXTERN int
pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	int style = PAM_PROMPT_ECHO_OFF, rc, at = 0;
	char *text, *answer = NULL;

	(void)flags;
	if (at < argc && strcmp(argv[at], "echo") == 0) {
		style = PAM_PROMPT_ECHO_ON;
		at++;
	}
	if (at < argc && strncmp(argv[at], "info=", 5) == 0) {
		text = spaced(argv[at++] + 5);
		pam_info(pamh, "%s", text != NULL ? text : "");
		free(text);
	}
	if (argc - at != 2)
		return PAM_SERVICE_ERR;
	text = spaced(argv[at]);
	rc = pam_prompt(pamh, style, &answer, "%s", text != NULL ? text : "");
	if (rc == PAM_SUCCESS)
		rc = answer != NULL && strcmp(answer, argv[at + 1]) == 0 ? PAM_SUCCESS : PAM_AUTH_ERR;
	free(answer);
	free(text);
	return rc;
}

PAM_EXTERN int
pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	(void)pamh;
	(void)flags;
	(void)argc;
	(void)argv;
	return PAM_SUCCESS;
}
