"""From a preset's name and flags to one checked, frozen, typed Config. Imports neither torch nor poptorch."""

from .comparing import Difference as Difference, differences as differences, may_change as may_change
from .errors import ConfigError as ConfigError, UserError as UserError, nearest as nearest, shown as shown
from .presets import (
    config_of_checkpoint as config_of_checkpoint,
    load_preset as load_preset,
    preset_names as preset_names,
    with_fields as with_fields,
)
from .resolved import OVERLAY as OVERLAY, PLACES as PLACES, SECTIONS as SECTIONS, Config as Config, second_phase as second_phase
from .sections import (
    AUTOMATIC_SPLITS as AUTOMATIC_SPLITS,
    MACHINES as MACHINES,
    NONE as NONE,
    SHAPING_FIELDS as SHAPING_FIELDS,
    AugmentationConfig as AugmentationConfig,
    AveragingConfig as AveragingConfig,
    BatchConfig as BatchConfig,
    DataConfig as DataConfig,
    IpuConfig as IpuConfig,
    ModelConfig as ModelConfig,
    OptimizerConfig as OptimizerConfig,
    PrecisionConfig as PrecisionConfig,
    RunConfig as RunConfig,
    ScheduleConfig as ScheduleConfig,
    Section as Section,
    ValidationConfig as ValidationConfig,
)
from .stored import plain_values as plain_values
