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

struct host;
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

struct host *host_of(lua_State *L);
uv_loop_t *host_loop(struct host *h);

#endif
