"""How tests train and validate: through the entry points' own stories, in this process."""

from __future__ import annotations

import csv
import json

import train as training_entry
import validate as validation_entry
from cli import TrainingArguments, parse_validation_arguments
from config import load_preset

PLAIN = {"norm": "none", "proxy_norm": False}  # compiled in a fifth of the time, where the network is not what is tested
CLOCKED = ("images_per_second", "data_wait")  # columns that time decides


def train(config):
    """Exit code of training a config."""
    return training_entry.tell(TrainingArguments(config))


def run(folder, **overrides):
    """Train tiny for an epoch, with these fields, and return the rows of training.csv without timing."""
    values = {"output": str(folder), "log_every_steps": 1, "epochs": 1, **overrides}
    assert train(load_preset("tiny", values)) == 0
    return rows(folder)


def rows(folder, name="training.csv"):
    with open(folder / name, newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCKED} for row in csv.DictReader(file)]


def validate(*arguments):
    """Exit code of validate.py with these arguments."""
    return validation_entry.tell(parse_validation_arguments([str(argument) for argument in arguments]))


def validated(folder, *arguments):
    """What validate.py says of a run."""
    assert validate("--checkpoint", folder, *arguments) == 0
    return json.loads((folder / "validate.json").read_text())
