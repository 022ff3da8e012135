# What the scripts that start servers share; to be sourced.

say() { printf '%s\n' "$*" >&2; }

# A loopback port below the range from which the kernel hands out outgoing ones.
free_port() {
  local port
  while :; do
    port=$((10000 + RANDOM % 10000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
  done
}

# $1 = what, $2 = process id, $3 = seconds, rest = a command that succeeds once it is ready
wait_ready() {
  local what="$1" pid="$2" deadline=$((SECONDS + $3))
  shift 3
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then return 1; fi
    sleep 0.05
  done
  say "$what is ready (process $pid)"
}

# $1 = file with the process id, $2 = signal that asks for an orderly end
stop_one() {
  local pid deadline=$((SECONDS + 20))
  [ -s "$1" ] || return 0
  pid="$(cat "$1")"
  kill "-$2" "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      say "process $pid did not end by itself"
      kill -KILL "$pid" 2>/dev/null || true
      break
    fi
    sleep 0.05
  done
  rm -f "$1"
}
