#!/usr/bin/env python3
"""Checks that every crate in Cargo.lock has a licence that deny.toml allows. Names the ones that have not, and fails."""
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = set(tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]["allow"])


def fits(expression):
    """Whether an SPDX expression can be met with the allowed licences; AND binds closer than OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def alternatives():
        met = conjunction()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = conjunction() or met
        return met

    def conjunction():
        met = licence()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = licence() and met
        return met

    def licence():
        token = tokens.pop(0)
        if token == "(":
            met = alternatives()
            tokens.pop(0)
            return met
        if tokens and tokens[0] == "WITH":
            # An exception only adds to what the licence allows.
            del tokens[:2]
        return token in ALLOWED

    return alternatives()


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
    packages = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)["packages"]
    bad = [package for package in packages if not fits(package["license"] or "none")]
    for package in bad:
        print(f"{package['name']} {package['version']}: {package['license']} is not among the licences of deny.toml")
    print(f"{len(packages)} crates, {len(bad)} with a licence that is not allowed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
