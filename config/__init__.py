"""From a preset's name and flags to one checked, frozen, typed Config. Imports neither torch nor poptorch."""

from .presets import ConfigError as ConfigError, load_preset as load_preset, preset_names as preset_names
from .sections import (
    AUTOMATIC_SPLITS as AUTOMATIC_SPLITS,
    SECTION_OF_FIELD as SECTION_OF_FIELD,
    SECTIONS as SECTIONS,
    AugmentationConfig as AugmentationConfig,
    AveragingConfig as AveragingConfig,
    BatchConfig as BatchConfig,
    Config as Config,
    DataConfig as DataConfig,
    FineTuneConfig as FineTuneConfig,
    IpuConfig as IpuConfig,
    ModelConfig as ModelConfig,
    OptimizerConfig as OptimizerConfig,
    PrecisionConfig as PrecisionConfig,
    RunConfig as RunConfig,
    ScheduleConfig as ScheduleConfig,
)
