/*
 * ssh_questions.c - the methods that a person could answer: password and keyboard-interactive.
 *
 * Answers come from the options first.  For what these do not hold somebody is asked, through the
 * loop, while the thread waits; where nobody may be asked it hangs up, because an empty answer would
 * count as a wrong one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssh_job.h"

#define TYPED_TRIES 3		/* as ssh's NumberOfPasswordPrompts */

static void
note_prompt(struct ssh_failure *f, const char *text, size_t length, bool echo)
{
	struct ssh_prompt *more = realloc(f->prompts, (f->prompt_count + 1) * sizeof *more);

	if (more == NULL)
		return;
	f->prompts = more;
	more[f->prompt_count].text = strndup(text, length);
	more[f->prompt_count].echo = echo;
	if (more[f->prompt_count].text != NULL)
		f->prompt_count++;
}

/* What stands above the questions: the name and the instruction, where the server sends them. */
static void
note_words(struct ssh_failure *f, const char *text, size_t length)
{
	size_t used = strlen(f->said);

	if (length > 0)
		snprintf(f->said + used, sizeof f->said - used, "%s%.*s", used > 0 ? "\n" : "", (int)length, text);
}

static const struct ssh_text *
next_answer(struct ssh_job *j, const LIBSSH2_USERAUTH_KBDINT_PROMPT *prompt, int prompts)
{
	const struct ssh_options *o = j->o;

	if (j->password_only)
		return prompts == 1 && !prompt->echo && j->answered++ == 0 ? &o->password : NULL;
	return j->answered < o->answer_count ? &o->answers[j->answered++] : NULL;
}

/* libssh2 frees it, with free(). */
static void
give_answer(LIBSSH2_USERAUTH_KBDINT_RESPONSE *response, const struct ssh_text *answer)
{
	size_t length = answer != NULL ? answer->length : 0;

	response->text = malloc(length + 1);
	response->length = response->text != NULL ? (unsigned)length : 0;
	if (response->length > 0)
		memcpy(response->text, answer->bytes, length);
}

/* Has the noted questions answered by a person; without one the connection ends here. */
static bool
typed(struct ssh_job *j)
{
	const char *first = j->failure.prompt_count > 0 ? j->failure.prompts[0].text : "?";

	if (j->o->ask && ssh_job_ask(j)) {
		j->typed = true;
		return true;
	}
	ssh_failure_set(&j->failure, "EPROMPT", "%s asks: %s", j->o->host, first);
	wire_shut(j->wire);
	return false;
}

static LIBSSH2_USERAUTH_KBDINT_RESPONSE_FUNC(answer_prompts)
{
	struct ssh_job *j = ((struct wire *)*abstract)->owner;
	int known = 0;

	ssh_failure_forget_prompts(&j->failure);
	note_words(&j->failure, name, (size_t)name_len);
	note_words(&j->failure, instruction, (size_t)instruction_len);
	for (; known < num_prompts; known++) {
		const struct ssh_text *answer = next_answer(j, &prompts[known], num_prompts);

		if (answer == NULL)
			break;
		give_answer(&responses[known], answer);
	}
	if (known == num_prompts)
		return;
	for (int i = known; i < num_prompts; i++)
		note_prompt(&j->failure, (const char *)prompts[i].text, prompts[i].length, prompts[i].echo != 0);
	typed(j);
	for (int i = known; i < num_prompts; i++) {
		size_t n = (size_t)(i - known);

		give_answer(&responses[i], n < j->given_count ? &j->given[n] : NULL);
	}
	ssh_job_forget_given(j);
}

/* Wrong answers that a person typed may be typed again; others would only be wrong again. */
static bool
ask_interactively(struct ssh_job *j, bool password)
{
	const char *user = j->o->user;
	int rc;

	j->password_only = password;
	for (j->failure.attempt = 1; j->failure.attempt <= TYPED_TRIES; j->failure.attempt++) {
		j->answered = 0;
		j->typed = false;
		do
			rc = libssh2_userauth_keyboard_interactive_ex(j->lib, user, (unsigned)strlen(user),
			                                              answer_prompts);
		while (ssh_job_again(j, rc));
		if (ssh_job_let_in(j, rc, password ? "password" : "keyboard-interactive"))
			return true;
		if (!j->typed || j->failure.code != NULL || ssh_job_dead(j))
			break;
	}
	return false;
}

static int
send_password(struct ssh_job *j, const struct ssh_text *password)
{
	const char *user = j->o->user;
	int rc;

	do
		rc = libssh2_userauth_password_ex(j->lib, user, (unsigned)strlen(user), password->bytes,
		                                  (unsigned)password->length, NULL);
	while (ssh_job_again(j, rc));
	return rc;
}

static void
note_password(struct ssh_job *j, int rc)
{
	SSH_TRIED(j, rc == LIBSSH2_ERROR_PASSWORD_EXPIRED ? "password (it has expired)" : "password");
}

/* Many servers ask for the password as a question only; one hidden question is taken for it. */
bool
ssh_job_try_password(struct ssh_job *j)
{
	const struct ssh_options *o = j->o;
	int rc;

	if (o->password.bytes == NULL)
		return false;
	if (ssh_job_offers(j, "password")) {
		rc = send_password(j, &o->password);
		if (ssh_job_let_in(j, rc, "password"))
			return true;
		note_password(j, rc);
		return false;
	}
	if (o->answer_count > 0 || !ssh_job_offers(j, "keyboard-interactive"))
		return false;
	if (ask_interactively(j, true))
		return true;
	SSH_TRIED(j, "password, as an answer");
	return false;
}

bool
ssh_job_try_questions(struct ssh_job *j)
{
	if (!ssh_job_offers(j, "keyboard-interactive"))
		return false;
	if (ask_interactively(j, false))
		return true;
	if (j->failure.attempt > TYPED_TRIES)
		SSH_TRIED(j, "keyboard-interactive (%d times)", TYPED_TRIES);
	else
		SSH_TRIED(j, "keyboard-interactive");
	return false;
}

static bool
in_order(const struct ssh_options *o, enum ssh_method m)
{
	for (size_t i = 0; i < o->order_count; i++)
		if (o->order[i] == m)
			return true;
	return false;
}

bool
ssh_job_ask_password(struct ssh_job *j)
{
	char prompt[512];
	int rc;

	if (!j->o->ask || j->typed || j->o->password.bytes != NULL || j->failure.code != NULL || ssh_job_dead(j) ||
	    !in_order(j->o, SSH_PASSWORD) || !ssh_job_offers(j, "password"))
		return false;
	snprintf(prompt, sizeof prompt, "%s@%s's password: ", j->o->user, j->o->host);
	for (j->failure.attempt = 1; j->failure.attempt <= TYPED_TRIES; j->failure.attempt++) {
		ssh_failure_forget_prompts(&j->failure);
		note_prompt(&j->failure, prompt, strlen(prompt), false);
		if (!typed(j) || j->given_count == 0)
			return false;
		rc = send_password(j, &j->given[0]);
		ssh_job_forget_given(j);
		if (ssh_job_let_in(j, rc, "password"))
			return true;
		if (rc == LIBSSH2_ERROR_PASSWORD_EXPIRED || ssh_job_dead(j))
			break;
	}
	note_password(j, rc);
	return false;
}
