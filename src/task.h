/*
 * task.h - coroutines on the event loop.
 *
 * A binding that has to wait builds an op in a userdata on top of its stack, starts the work and
 * ends with `return task_await(L, op)`.  Whoever finishes the work calls task_wake(op), from any
 * callback of the loop.  These two are the only doors: no binding calls lua_yield or lua_resume.
 *
 * An op that is done is delivered even to a cancelled task; the error comes at its next wait.
 */
#ifndef RUNBOOK_TASK_H
#define RUNBOOK_TASK_H

#include <stdbool.h>

#include <lua.h>
#include <uv.h>

struct runbook_host;
struct task;

/* What a task may do to the world; the gate (lib/runbook/effect.lua) raises and lowers it. */
enum permit { PERMIT_NONE, PERMIT_READ, PERMIT_CHANGE, PERMIT_DESTROY };

struct task_op {
	/* Push the results and return their count.  Runs in the waiter; may raise. */
	int (*finish)(lua_State *L, struct task_op *op);
	/* Abandon the work: done must not come after this.  Idempotent; never touches Lua. */
	void (*cancel)(struct task_op *op);

	const char *what;	/* "ssh exec": shown by SIGUSR1; static or as long-lived as the op */
	struct task *waiter;	/* NULL unless a task is parked on this op */
	bool done;
};

/* The last thing a binding does; nothing may follow it in the C function. */
int task_await(lua_State *L, struct task_op *op);

/* The op is done.  From the loop's thread only; marks, never resumes. */
void task_wake(struct task_op *op);

/* The task that runs on L, or NULL (main state, or a coroutine that is no task). */
struct task *task_running(lua_State *L);

/*
 * A new task around the function below its nargs arguments on top of L; pops them all and pushes
 * the task's userdata.  Inherits context and permit of the task that runs on L.  [-(nargs+1), +1, m]
 */
struct task *task_spawn(lua_State *L, int nargs);

/* Asks the task to end: its present wait is abandoned and every later one raises. */
void task_cancel(struct task *t);
bool task_is_done(const struct task *t);

enum permit task_permit(const struct task *t);
void task_set_permit(struct task *t, enum permit p);

/* For src/lua/task.c: the task at idx; its end as `true, results…` or `false, error` (nothing while it runs). */
#define TASK_MT      "runbook.task"
#define TASK_JOIN_MT "runbook.task.join"
struct task *task_check(lua_State *L, int idx);
int task_push_results(lua_State *L, int idx);
/* join_all(tasks): waits until all have ended; a cancelled joiner cancels them and waits all the same. */
int task_join_all(lua_State *L);
int task_join_gc(lua_State *L);
/* The table a task carries and hands to its children.  [-0, +1, -] and [-0, +0, m] */
void task_push_context(lua_State *L, const struct task *t);
void task_set_context(lua_State *L, struct task *t, int idx);
/* For the list of living tasks, newest first. */
struct task *task_first(const struct runbook_host *h);
struct task *task_next(const struct task *t);
unsigned long task_serial(const struct task *t);
const char *task_waits_for(const struct task *t);
lua_State *task_coroutine(const struct task *t);

/* Registry field: the value raised in a task that was cancelled. */
#define TASK_CANCELLED "runbook.cancelled"

/* For host.c: resumes those that were ready when it was called; false when there was none. */
bool task_run_ready(struct runbook_host *h);

struct runbook_host *host_of(lua_State *L);
uv_loop_t *host_loop(struct runbook_host *h);

#endif
