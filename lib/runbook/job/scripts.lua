--- The far half of jobs: POSIX sh and coreutils, nothing else (dash and busybox are enough).
---
--- A job is a directory `<base>/<run>/<step>/<unit>/<name>/<try>`, and what it holds is its state:
---
---     starter     who made the directory: pid, start time (field 22 of /proc/PID/stat), boot id
---     claim/      made by the supervisor before it starts the command, or by whoever finds that it never will
---     supervisor  as starter; there from before the command starts
---     pid         as starter, for the command, which leads a process group of its own
---     command     its arguments, a line each, for people
---     out err     what it printed
---     running     renamed to `exit.STATUS` when it has ended: a rename needs no room on a full disk
---     spare       renamed to `full` when there was no room left at the end
---
--- mkdir and rename are atomic, so a command starts at most once and has ended exactly when exit.* is there.

local scripts = {}

local common = [[
umask 077
LC_ALL=C; export LC_ALL
state=${XDG_STATE_HOME:-${HOME:+$HOME/.local/state}}
uid=$(id -u)
key=$1; shift

bases() {
  if [ -n "$state" ]; then echo "$state/runbook/jobs"; fi
  echo "/var/tmp/runbook-$uid/jobs"
}
locate() {
  while read -r base; do
    dir=$base/$key
    if [ -d "$dir" ]; then return 0; fi
  done <<END
$(bases)
END
  return 1
}
# The start time of a process that lives: a number alone may be somebody else's by now.
born() {
  line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  set -- ${line##*) }
  case $1 in Z|X) return 1; esac
  echo "${20}"
}
boot() { cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo unknown; }
alive() {
  read -r p b id 2>/dev/null <"$dir/$1" || return 1
  [ "$id" = "$(boot)" ] && [ "$(born "$p")" = "$b" ]
}
note() {
  echo "$2 $(born "$2") $(boot)" >"$dir/$1.new" && mv "$dir/$1.new" "$dir/$1"
}
ended() {
  for f in "$dir"/exit.*; do
    if [ -e "$f" ]; then code=${f##*/exit.}; return 0; fi
  done
  return 1
}
nap() { sleep "$1" 2>/dev/null || sleep 1; }
]]

-- $1 directory, $2 how many bytes of its stdin are the command's (`no`: none), $3 what makes a process group; then the command. Becomes the supervisor.
scripts.supervise = [[
umask 077
dir=$1 input=$2 group=$3; shift 3
born() { line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1; set -- ${line##*) }; echo "${20}"; }
boot() { cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo unknown; }
note() { echo "$2 $(born "$2") $(boot)" >"$dir/$1.new" && mv "$dir/$1.new" "$dir/$1"; }
caught=
trap 'caught=1' HUP INT TERM
mkdir "$dir/claim" 2>/dev/null || exit 0
note supervisor "$$" || { mv "$dir/running" "$dir/exit.none"; exit 1; }
exec 3<&0 </dev/null
if [ "$input" != no ]; then
  base64 -d <&3 3<&- | head -c "$input" 3<&- | $group "$@" >>"$dir/out" 2>>"$dir/err" 3<&- &
else
  $group "$@" >>"$dir/out" 2>>"$dir/err" 3<&- </dev/null &
fi
pid=$!
exec 3<&-
note pid "$pid"
status=
while :; do
  caught=
  wait "$pid"; s=$?
  if [ -z "$caught" ]; then break; fi
  status=$s
done
if [ "$s" -eq 127 ] && [ -n "$status" ]; then s=$status; fi
if ! dd if=/dev/zero of="$dir/probe" bs=65536 count=1 2>/dev/null; then mv "$dir/spare" "$dir/full"; fi
rm -f "$dir/probe"
mv "$dir/running" "$dir/exit.$s"]]

-- $1 key, $2 the mark at the end of stdin (empty: there is no stdin), $3 the supervisor; then the command. What it reads may
-- be a secret: it is held in memory, in base64 because variables hold no zero bytes, and starts nothing before it is complete.
scripts.start = common .. [[
mark=$1 supervise=$2; shift 2
if locate; then echo exists; exit 0; fi
made=
while read -r base; do
  mkdir -p "$base" 2>/dev/null || continue
  if [ "$(stat -c %u "$base" 2>/dev/null)" != "$uid" ]; then continue; fi
  if mkdir -p "$base/${key%/*}" 2>/dev/null; then made=1; break; fi
done <<END
$(bases)
END
if [ -z "$made" ]; then
  mkdir -p "$base/${key%/*}"
  echo "there is no directory for the job: $(bases | tr '\n' ' ')" >&2; exit 1
fi
dir=$base/$key
if ! mkdir "$dir" 2>/dev/null; then
  if [ -d "$dir" ]; then echo exists; exit 0; fi
  mkdir "$dir"; exit 1
fi
give_up() { rm -rf "$dir"; echo "$1" >&2; exit 1; }
note starter "$$" && : >"$dir/out" && : >"$dir/err" && echo >"$dir/running" && echo >"$dir/spare" &&
  printf '%s\n' "$@" >"$dir/command" || give_up "$dir: No space left on device or not writable"
input=no in=
if [ -n "$mark" ]; then
  in=$(base64 | tr -d '\n')
  padding=${in#"${in%%=*}"}
  input=$((${#in} / 4 * 3 - ${#padding} - ${#mark}))
  if [ "$input" -lt 0 ] || [ "$(printf %s "$in" | base64 -d | tail -c "${#mark}")" != "$mark" ]; then
    give_up "its input broke off"
  fi
fi
if setsid id >/dev/null 2>&1; then session=setsid group=setsid
elif timeout --foreground 5 id >/dev/null 2>&1; then session= group="timeout 0"
else session= group=
fi
if [ "$input" != no ]; then
  { trap '' HUP; printf %s "$in"; } | $session sh -c "$supervise" runbook-job "$dir" "$input" "$group" "$@" >/dev/null 2>&1 &
else
  $session sh -c "$supervise" runbook-job "$dir" no "$group" "$@" </dev/null >/dev/null 2>&1 &
fi
i=0
while [ ! -e "$dir/supervisor" ] && ! ended && [ "$i" -lt 250 ]; do nap 0.02; i=$((i + 1)); done
echo started]]

-- $1 key. One line: state, exit status, bytes of out, bytes of err, `full` when its disk is, directory.
scripts.state = common .. [[
if ! locate; then echo "never - 0 0 - -"; exit 0; fi
code=- full=-
look() {
  if ended; then
    if [ "$code" = none ]; then what=never; else what=done; fi
  elif [ ! -d "$dir/claim" ]; then
    if alive starter; then what=starting
    elif mkdir "$dir/claim" 2>/dev/null; then mv "$dir/running" "$dir/exit.none" 2>/dev/null; what=never
    else what=starting
    fi
  elif alive supervisor || alive pid; then what=running
  elif ended; then look
  elif [ ! -e "$dir/supervisor" ] && alive starter; then what=starting
  else what=lost
  fi
}
look
if [ "$what" = lost ]; then nap 0.5; look; fi
if [ -e "$dir/full" ]; then full=full; fi
echo "$what $code $(stat -c %s "$dir/out" 2>/dev/null || echo 0) $(stat -c %s "$dir/err" 2>/dev/null || echo 0) $full $dir"]]

-- $1 key, $2 and $3 bytes of out and err that were read already. Ends when the job has ended and all was sent, or with
-- its stdin: an end that is gone must not leave us polling. ALL_SAID: it has ended with status 0, all its output was kept, and sent.
scripts.ALL_SAID = 100
scripts.follow = (common .. [[
locate || exit 3
exec 5<&0
{ exec >/dev/null 2>&1; cat <&5; kill "$$"; } &
watcher=$!
trap 'kill "$watcher" 2>/dev/null' EXIT
trap 'exit 1' HUP INT PIPE TERM
exec 5<&- 3<"$dir/out" 4<"$dir/err" || exit 1
tail -c "+$(($1 + 1))" <&3 && tail -c "+$(($2 + 1))" <&4 >&2 || exit 1
n=0
while :; do
  over=
  if ended; then over=1
  elif [ $((n % 16)) -eq 15 ] && ! alive supervisor && ! alive pid; then over=1
  fi
  cat <&3 && cat <&4 >&2 || exit 1
  if [ -n "$over" ]; then
    if [ "${code-}" = 0 ] && [ ! -e "$dir/full" ]; then exit ALL_SAID; fi
    exit 0
  fi
  n=$((n + 1))
  if [ "$n" -lt 40 ]; then nap 0.05
  elif [ "$n" -lt 130 ]; then nap 0.3
  else nap 1
  fi
done]]):gsub("ALL_SAID", scripts.ALL_SAID)

-- $1 key, $2 seconds between TERM and KILL.
scripts.stop = common .. [[
if ! locate || ended; then exit 0; fi
# On a busy machine its command may be about to start.
i=0
while [ ! -e "$dir/pid" ] && ! ended && { alive supervisor || alive starter; } && [ "$i" -lt 150 ]; do nap 0.2; i=$((i + 1)); done
if ! alive pid; then exit 0; fi
read -r leader b id <"$dir/pid"
# dash wants the two dashes before a group, busybox refuses them.
group_kill() { kill -s "$1" -- "-$leader" 2>/dev/null || kill -s "$1" "-$leader" 2>/dev/null; }
send() { group_kill "$1" || kill -s "$1" "$leader" 2>/dev/null; }
group() { group_kill 0 || alive pid; }
send TERM
i=0
while group && [ "$i" -lt $(($1 * 5)) ]; do nap 0.2; i=$((i + 1)); done
if group; then send KILL; fi
i=0
while group || ! ended && alive supervisor; do
  if [ "$i" -ge 25 ]; then break; fi
  nap 0.2; i=$((i + 1))
done]]

-- $1 key, $2 `any`: even what still runs.
scripts.forget = common .. [[
if ! locate; then exit 0; fi
if [ "$1" != any ] && ! ended && { alive supervisor || alive pid; }; then echo "it still runs" >&2; exit 1; fi
rm -rf "$dir" || exit 1
case $key in */*) (cd "$base" && rmdir -p "${key%/*}" 2>/dev/null); esac
rmdir "$base" "${base%/*}" 2>/dev/null
exit 0]]

-- $1 part of a key. The keys of all jobs below it, a line each.
scripts.list = common .. [[
while read -r base; do
  if [ -d "$base/$key" ]; then (cd "$base" && find "$key" -name command -type f | sed 's:/command$::'); fi
done <<END
$(bases)
END]]

return scripts
