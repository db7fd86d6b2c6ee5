"""The config of a fine-tuning phase, which follows from that of the training before it."""

from __future__ import annotations

from .errors import ConfigError
from .presets import with_fields
from .resolved import Config


def fine_tuning(config: Config) -> Config:
    """How the last layers are trained after `config`: own size, batch and schedule, validation-style pixels, everything else unchanged.

    Raises:
        ConfigError: no epochs of it are stated, or its fields do not fit together.
    """
    stated = config.fine_tune
    if not stated.fine_tune_epochs:
        raise ConfigError(
            f"preset {config.preset!r} has no fine-tuning: give --fine-tune-epochs, such as 2, and --fine-tune-image-size, in pixels"
        )
    return with_fields(
        config,
        trainable_layers=stated.fine_tune_layers,
        image_size=stated.fine_tune_image_size,
        validation_image_size=0,
        preprocessing="validation",
        micro_batch_size=stated.fine_tune_micro_batch_size,
        global_batch_size=stated.fine_tune_global_batch_size,
        gradient_accumulation=0,
        replicas=stated.fine_tune_replicas,
        device_iterations=1,
        epochs=stated.fine_tune_epochs,
        base_learning_rate=stated.fine_tune_base_learning_rate,
        schedule="cosine",
        warmup_epochs=stated.fine_tune_warmup_epochs,
        averaging="none",
        pipeline_splits=(),
        fine_tune_epochs=0,
    )


def nearest_good_sizes(training_size: int, size: int, period: int) -> tuple:
    """Sizes around `size` whose remainder by the network's total stride is that of the training size, so that padding falls alike."""
    below = size - (size - training_size) % period
    return tuple(good for good in (below, below + period) if good > 0)
