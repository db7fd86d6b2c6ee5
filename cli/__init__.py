"""What a user types and reads: flags, exit codes, lines of results. Knows the config and no torch."""

from .arguments import (
    EstimateArguments as EstimateArguments,
    SummaryArguments as SummaryArguments,
    TrainingArguments as TrainingArguments,
    ValidationArguments as ValidationArguments,
    parse_estimate_arguments as parse_estimate_arguments,
    parse_summary_arguments as parse_summary_arguments,
    parse_training_arguments as parse_training_arguments,
    parse_validation_arguments as parse_validation_arguments,
)
from .exits import run_program as run_program
from .lines import (
    derived_values as derived_values,
    describe as describe,
    training_lines as training_lines,
    validation_lines as validation_lines,
)
