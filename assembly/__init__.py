"""From a config to what runs: programs, phases, estimates. The one room that knows all the others."""

from training.instances import is_first as is_first, join as join
from training.run.export import export_weights as export_weights, record_result as record_result
from training.run.size_sweep import write_sweep as write_sweep
from training.run.stored import load_weights as load_weights, read_end as read_end

from .estimates import Case as Case, estimate_config as estimate_config
from .phases import (
    facts_of as facts_of,
    following as following,
    phases_of as phases_of,
    prepare_phases as prepare_phases,
    resolution_warning as resolution_warning,
)
from .runs import Outcome as Outcome, run_phase as run_phase
from .summaries import LATENCY_RUNS as LATENCY_RUNS, summarise as summarise
from .validation import config_of as config_of, validate as validate, validate_sizes as validate_sizes
