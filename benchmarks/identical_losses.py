"""Does the tree compute what a git revision computed, bit for bit? Run this before and after every refactoring.

`python -m benchmarks.identical_losses --revision main` trains the preset `tiny` twice on this machine, once from a worktree of the revision
and once from the tree as it stands, and compares losses, validation results and weights to the last bit. Flags of train.py may follow:
`python -m benchmarks.identical_losses --revision HEAD~1 --precision 16.16 --norm group --no-proxy-norm`. Exit code 1: they differ.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, Sequence

import torch

ROOT = Path(__file__).parent.parent
CLOCKED = ("images_per_second", "data_wait")  # columns that time decides


def main() -> int:
    """Train in both trees and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revision", default="HEAD", help="what the tree is compared with: a commit, a branch, HEAD~1 (default HEAD)")
    parser.add_argument("--config", default="tiny", metavar="PRESET", help="preset that both train (default tiny)")
    arguments, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as place:
        worktree, folders = Path(place) / "revision", [Path(place) / "before", Path(place) / "after"]
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(worktree), arguments.revision], cwd=ROOT, check=True)
        try:
            for tree, folder in zip((worktree, ROOT), folders):
                train(tree, folder, ["--config", arguments.config, *flags])
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(worktree)], cwd=ROOT, check=True)
        lines = differences(*folders)
    print("\n".join(lines) or f"identical to {arguments.revision}: losses, validation and weights of {arguments.config}, bit for bit")
    return int(bool(lines))


def train(tree: Path, folder: Path, flags: Sequence[str]) -> None:
    """Run a tree's train.py into a folder, quietly; CalledProcessError where it fails, after its output."""
    command = [sys.executable, "train.py", "--output", str(folder), "--log-every-steps", "1", *flags]
    # An installed copy, or PYTHONPATH, must not stand in for the tree's own packages.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout)
        done.check_returncode()


def differences(before: Path, after: Path) -> List[str]:
    """A line for each table, row or tensor that differs between two run folders."""
    found: List[str] = []
    for name in ("training.csv", "validation.csv"):
        rows = [_rows(folder / name) for folder in (before, after)]
        if len(rows[0]) != len(rows[1]):
            found.append(f"{name}: {len(rows[0])} rows before, {len(rows[1])} after")
        for index, (one, other) in enumerate(zip(*rows)):
            changed = [f"{key} {one[key]} -> {other[key]}" for key in one if key in other and one[key] != other[key]]
            found += [f"{name}, row {index + 1}: {', '.join(changed)}"] if changed else []
    weights = [torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model"] for folder in (before, after)]
    if set(weights[0]) != set(weights[1]):
        found.append(f"weights of other names: {', '.join(sorted(set(weights[0]) ^ set(weights[1])))}")
    unequal = [name for name in weights[0] if name in weights[1] and not _is_same(weights[0][name], weights[1][name])]
    return found + ([f"{len(unequal)} of {len(weights[0])} weights differ, the first: {unequal[0]}"] if unequal else [])


def _rows(path: Path) -> List[Dict[str, str]]:
    with open(path, newline="") as file:
        return [{key: value for key, value in row.items() if key not in CLOCKED} for row in csv.DictReader(file)]


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal in every bit: NaNs are equal to themselves, and zeros differ by their sign."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))


if __name__ == "__main__":
    sys.exit(main())
