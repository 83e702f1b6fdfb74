#!/usr/bin/env bash
# Checks alert rules and Prometheus's configuration, and runs the tests of the rules, with Debian's promtool.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
command -v promtool >/dev/null || install_packages prometheus || fail "Missing: promtool (Debian: prometheus)."
promtool check config deploy/prometheus/prometheus.yml
promtool test rules deploy/prometheus/alerts_test.yml
