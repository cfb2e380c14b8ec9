#!/usr/bin/env bash
# Starts the head of a Ray cluster on this machine, with token authentication and quick detection of lost nodes.
#
#   cluster/start_head.sh [further options of `ray start`, such as --num-cpus 4 --port 6379 --temp-dir DIR]
#
# The token: RAY_AUTH_TOKEN if set, else the file RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token, made if it is not there.
# Every node and every client needs the same one. End the cluster of this machine with `ray stop`.
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0
export RAY_AUTH_MODE=token
# A lost node is noticed after 8 s instead of 64 s.
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=3
export RAY_grpc_client_keepalive_time_ms=10000 RAY_grpc_client_keepalive_timeout_ms=5000
if [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]; then
  ray get-auth-token --generate >/dev/null
fi
exec ray start --head --dashboard-host 127.0.0.1 "$@"
