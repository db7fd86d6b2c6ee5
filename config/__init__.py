"""From a preset's name and flags to one checked, frozen, typed Config. Imports neither torch nor poptorch."""

from .errors import ConfigError as ConfigError, UserError as UserError
from .presets import load_preset as load_preset, nearest as nearest, preset_names as preset_names
from .resolved import SECTION_OF_FIELD as SECTION_OF_FIELD, SECTIONS as SECTIONS, Config as Config
from .sections import (
    AUTOMATIC_SPLITS as AUTOMATIC_SPLITS,
    AugmentationConfig as AugmentationConfig,
    AveragingConfig as AveragingConfig,
    BatchConfig as BatchConfig,
    DataConfig as DataConfig,
    FineTuneConfig as FineTuneConfig,
    IpuConfig as IpuConfig,
    ModelConfig as ModelConfig,
    OptimizerConfig as OptimizerConfig,
    PrecisionConfig as PrecisionConfig,
    RunConfig as RunConfig,
    ScheduleConfig as ScheduleConfig,
)
