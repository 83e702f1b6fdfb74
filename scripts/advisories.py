#!/usr/bin/env python3
"""Compares Cargo.lock with the RustSec advisory database, and fails when an advisory applies.

The database is a clone (bare or not) of its git repository, in PG2ANY_ADVISORY_DB or as the argument. Without one it is skipped.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version(text):
    return tuple(int(part or 0) for part in re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", text.strip()).groups())


def meets(have, requirement):
    """Whether a version meets a requirement as cargo understands it."""
    have = version(have)
    for part in requirement.split(","):
        operator, wanted = re.match(r"(>=|<=|>|<|=|\^|~)?\s*(.+)", part.strip()).groups()
        wanted = version(wanted)
        major, minor, patch = wanted
        above = (major, minor + 1, 0) if operator == "~" or not major and minor else (major + 1, 0, 0) if major else (0, 0, patch + 1)
        fits = {">=": have >= wanted, "<=": have <= wanted, ">": have > wanted, "<": have < wanted, "=": have == wanted}
        if not fits.get(operator, wanted <= have < above):
            return False
    return True


def main():
    database = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PG2ANY_ADVISORY_DB")
    if not database:
        print("SKIP advisories: PG2ANY_ADVISORY_DB names no clone of the RustSec advisory database")
        return
    git = lambda *arguments: subprocess.check_output(["git", "-C", database, *arguments], text=True)
    locked = {}
    for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]:
        locked.setdefault(package["name"], []).append(package["version"])
    seen, found = 0, 0
    for path in git("ls-tree", "-r", "--name-only", "HEAD", "crates").splitlines():
        versions = locked.get(path.split("/")[1], [])
        if not versions or not path.endswith(".md"):
            continue
        seen += 1
        text = git("show", f"HEAD:{path}")
        advisory = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.S).group(1))
        if "withdrawn" in advisory["advisory"]:
            continue
        spared = advisory.get("versions", {})
        for have in versions:
            if not any(meets(have, requirement) for requirement in spared.get("patched", []) + spared.get("unaffected", [])):
                found += 1
                print(f"{advisory['advisory']['id']}: {path.split('/')[1]} {have} ({advisory['advisory'].get('informational', 'vulnerability')})")
    print(f"advisories: {seen} about our crates looked at, {found} apply")
    sys.exit(found > 0)


main()
