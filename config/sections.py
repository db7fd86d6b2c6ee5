"""The sections of a Config: every field with its type, default, range, unit and what it means. Derived values are properties.

A field is `fixed` where it decides what a run computes, and `free` where a resumed run may change it. An optional field is None where
nothing is stated; `none` is how a preset or a flag says so.
"""

from __future__ import annotations

from typing import Any, ClassVar, Optional, Tuple, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Annotated, Literal

AUTOMATIC_SPLITS = ("auto",)  # pipeline splits that the cost model finds
NONE = "none"
# Fields of the model that decide what its weights mean: a second phase goes on with those of the first.
SHAPING_FIELDS = tuple(
    "pixel_normalisation architecture group_size expand_ratio norm norm_channel_grouping proxy_norm proxy_norm_scale".split()
)

Machine = Literal["m2000", "pod4", "pod16", "pod64", "bow-2000", "bow-pod4", "bow-pod16", "bow-pod64", "c600"]
MACHINES: Tuple[str, ...] = get_args(Machine)  # those of the cost model
Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
Share = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Epochs = Annotated[float, Field(ge=0, le=1_000_000)]


def fixed(default: Any, description: str, unit: Optional[str] = None, **limits: Any) -> Any:
    """A field that decides what a run computes: a resumed run has to state the same."""
    return Field(default, description=description, json_schema_extra={"is_free": False, "unit": unit}, **limits)


def free(default: Any, description: str, unit: Optional[str] = None, **limits: Any) -> Any:
    """A field that a resumed run may change."""
    return Field(default, description=description, json_schema_extra={"is_free": True, "unit": unit}, **limits)


def is_optional(annotation: Any) -> bool:
    """Whether None is a value of the type."""
    return type(None) in get_args(annotation)


class Section(BaseModel):
    """A frozen group of fields; unknown keys are refused, numbers are finite and are not made from text or bools."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    flag_prefix: ClassVar[str] = ""  # before the names of its fields, where another section has fields of the same names

    @model_validator(mode="before")
    @classmethod
    def _read_values(cls, values: Any) -> Any:
        """Lists are tuples; `none` is None in an optional field, and the empty tuple in a field of several values."""
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {name: _read(fields[name].annotation, value) if name in fields else value for name, value in values.items()}


def is_none(value: Any) -> bool:
    """Whether a value states that there is none, as YAML, a flag, or a flag of several values says it."""
    return value is None or value in (NONE, (NONE,), [NONE])


def _read(annotation: Any, value: Any) -> Any:
    value = tuple(value) if isinstance(value, list) else value
    if is_none(value) and is_optional(annotation):
        return None
    return () if is_none(value) and get_origin(annotation) is tuple and Ellipsis in get_args(annotation) else value


class ModelConfig(Section):
    """What is computed."""

    architecture: Literal[
        "efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3", "efficientnet-b4", "efficientnet-b5",
        "efficientnet-b6", "efficientnet-b7", "efficientnet-cifar", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    ] = fixed("efficientnet-b0", "network")  # fmt: skip
    pixel_normalisation: Literal["mean", "mean-and-deviation"] = fixed(
        "mean-and-deviation",
        "pixels of 0 to 255 less ImageNet's mean, as in the paper's configurations, or divided by its deviation as well",
    )
    group_size: int = fixed(16, "in a group of the spatial convolutions; 1 is depthwise", "channels", ge=1, le=4096)
    expand_ratio: int = fixed(4, "channels inside a block / channels that enter it", "ratio", ge=1, le=64)
    norm: Literal["batch", "group", "layer", "none"] = fixed("layer", "normalisation")
    norm_groups: int = fixed(4, "of group norm", "groups", ge=1, le=4096)
    norm_channel_grouping: Literal["contiguous", "strided"] = fixed(
        "contiguous", "channels of a group of group norm: neighbours, as in PyTorch, or every norm_groups-th, as in TensorFlow on IPUs"
    )
    norm_epsilon: float = fixed(1e-3, "added to the variance in norms", "number", gt=0, le=1)
    batch_norm_momentum: float = fixed(0.1, "of a new batch in batch norm's running statistics", "share", gt=0, le=1)
    proxy_norm: bool = fixed(False, "normalise activations against a Gaussian proxy; with layer or group norm")
    proxy_epsilon: float = fixed(0.03, "added to the variance in Proxy Norm", "number", gt=0, le=1)
    proxy_norm_scale: Literal["folded", "everywhere"] = fixed(
        "folded",
        "where Proxy Norm's scale acts: everywhere, at each activation, or, as published, folded: into the gate of "
        "squeeze-and-excitation, dropped before the pooling",
    )
    dropout: float = fixed(0.2, "before the classifier", "probability", ge=0, lt=1)
    drop_path: float = fixed(0.2, "to skip the last block; rises linearly from 0", "probability", ge=0, lt=1)
    trainable_layers: Optional[Tuple[Text, ...]] = fixed(
        None, "module paths, such as blocks.6, that train; the others are frozen in evaluation mode; none: all train", min_length=1
    )

    @model_validator(mode="after")
    def _check_proxy_norm(self) -> ModelConfig:
        if self.proxy_norm and self.norm not in ("layer", "group"):
            raise ValueError(f"proxy_norm needs norm layer or group, got norm {self.norm!r}")
        return self


class DataConfig(Section):
    """What is fed."""

    dataset: Optional[Literal["digits", "cifar10", "imagenet", "folder", "idx", "fashion-mnist", "generated", "synthetic"]] = fixed(
        None, "images; none: what lies under data_path"
    )
    data_path: Optional[Text] = free(None, "folder of the data set, where it has one")
    validation_share: Optional[float] = fixed(
        None, "of each class's pictures, held out for validation where they have no folder of their own", "share", gt=0, lt=1
    )
    bounding_boxes: Optional[Text] = fixed(None, "CSV of ImageNet's bounding boxes: file name, xmin, ymin, xmax, ymax as shares")
    image_size: int = fixed(224, "on a side, in training", "pixels", ge=8, le=8192)
    preprocessing: Literal["none", "shift", "shift-flip", "standard", "autoaugment", "validation"] = fixed(
        "standard",
        "training pixels: as they are, shifted, shifted and flipped, random crop and flip, the same and AutoAugment, or as in validation",
    )
    eight_bit_io: bool = fixed(True, "send uint8 to the device and normalise there, else send floats")
    num_workers: int = free(0, "of the host, that load images", "processes", ge=0, le=1024)
    generated_images: int = fixed(1024, "in the generated and synthetic data sets", "images", ge=1, le=10_000_000)


class BatchConfig(Section):
    """How many images go where. One weight update uses replicas x gradient_accumulation x micro_batch_size images."""

    micro_batch_size: int = fixed(4, "that one replica computes at a time", "images", ge=1, le=65_536)
    gradient_accumulation: Optional[int] = fixed(
        None, "per replica and update; none: as many as global_batch_size needs", "micro batches", ge=1, le=1_000_000
    )
    global_batch_size: Optional[int] = fixed(
        None, "per update; none: as many as gradient_accumulation makes", "images", ge=1, le=1_000_000_000
    )
    replicas: int = fixed(1, "data-parallel copies of the model", "copies", ge=1, le=4096)
    device_iterations: int = fixed(1, "in one call of the device", "updates", ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _check(self) -> BatchConfig:
        per_step = self.micro_batch_size * self.replicas
        arithmetic = f"micro_batch_size {self.micro_batch_size} x replicas {self.replicas} = {per_step}"
        if self.gradient_accumulation is None and self.global_batch_size is None:
            raise ValueError("state gradient_accumulation or global_batch_size")
        if self.global_batch_size is not None and self.global_batch_size % per_step:
            below = max(self.global_batch_size // per_step, 1) * per_step
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of {arithmetic}; nearest: {below}, {below + per_step}"
            )
        if self.gradient_accumulation and self.global_batch_size not in (None, per_step * self.gradient_accumulation):
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not {arithmetic} x gradient_accumulation {self.gradient_accumulation} = "
                f"{per_step * self.gradient_accumulation}; state only one of the two"
            )
        return self

    @property
    def accumulation_steps(self) -> int:
        """Micro batches per replica and weight update."""
        return self.gradient_accumulation or (self.global_batch_size or 0) // (self.micro_batch_size * self.replicas)

    @property
    def images_per_update(self) -> int:
        """The global batch."""
        return self.micro_batch_size * self.replicas * self.accumulation_steps

    @property
    def images_per_call(self) -> int:
        """Images that one call of the training model consumes."""
        return self.images_per_update * self.device_iterations


class ValidationConfig(Section):
    """How validation differs from training."""

    flag_prefix: ClassVar[str] = "validation_"

    image_size: Optional[int] = fixed(None, "on a side, in validation; none: as in training", "pixels", ge=8, le=8192)
    micro_batch_size: Optional[int] = fixed(None, "that one replica validates at a time; none: as in training", "images", ge=1, le=65_536)
    replicas: Optional[int] = fixed(None, "of the model in validation; none: as in training", "copies", ge=1, le=4096)


class PrecisionConfig(Section):
    """Types on the device."""

    precision: Literal["16.16", "16.32", "32.32"] = fixed("16.32", "bits of activations and of stored weights")
    half_partials: bool = fixed(False, "half partial sums in matrix products")
    stochastic_rounding: bool = fixed(False, "round to half up or down at random, in proportion to the distance")

    @property
    def is_half_compute(self) -> bool:
        """Whether activations are half."""
        return self.precision in ("16.16", "16.32")

    @property
    def is_half_master(self) -> bool:
        """Whether stored weights are half."""
        return self.precision == "16.16"


class OptimizerConfig(Section):
    """The weight update."""

    optimizer: Literal["rmsprop", "sgd", "adamw"] = fixed("rmsprop", "rmsprop is TensorFlow's variant")
    momentum: float = fixed(0.9, "of rmsprop and sgd", "factor", ge=0, lt=1)
    combined_accumulator: bool = fixed(False, "sgd: keep gradient sum and velocity in one tensor")
    rmsprop_base_decay: float = fixed(2**-14, "per image: the mean square decays by 1 - this x global batch", "share", gt=0, lt=1)
    rmsprop_epsilon: float = fixed(1e-3, "added to the mean square, inside the root", "number", gt=0, le=1)
    adamw_betas: Tuple[Decay, Decay] = fixed((0.9, 0.999), "decay of the first and second moment", "factor")
    weight_decay: float = fixed(1e-5, "of all parameters but the scales and shifts of norms", "factor", ge=0, le=1)
    accumulator_type: Literal["float16", "float32"] = fixed("float32", "type of gradient sums")
    loss_scaling_mode: Literal["fixed", "ramp", "automatic"] = fixed("fixed", "how the loss scale moves")
    loss_scaling: float = fixed(1.0, "on the loss in the backward pass; the last one of a ramp", "factor", gt=0, le=2**40)
    initial_loss_scaling: float = fixed(1.0, "first loss scale of a ramp, which doubles in equal intervals", "factor", gt=0, le=2**40)


class ScheduleConfig(Section):
    """The learning rate over time."""

    epochs: int = fixed(350, "passes over the training images", "epochs", ge=1, le=1_000_000)
    base_learning_rate: float = fixed(2**-14, "the learning rate is this x global batch", "rate per image", gt=0, le=10)
    schedule: Literal["constant", "exponential", "cosine", "step"] = fixed(
        "exponential", "decay, which runs from epoch 0, in the warm-up too"
    )
    warmup_epochs: float = fixed(5.0, "linear rise from 0", "epochs", ge=0, le=1_000_000)
    decay_factor: float = fixed(0.97, "of one drop, exponential and step", "factor", gt=0, le=1)
    decay_every_epochs: float = fixed(350 / 146, "between drops, exponential", "epochs", gt=0, le=1_000_000)
    decay_milestones_epochs: Tuple[Epochs, ...] = fixed((30.0, 60.0, 80.0), "of drops, step", "epochs")


class AugmentationConfig(Section):
    """What the device does to images and labels in training."""

    label_smoothing: float = fixed(0.1, "of the label, spread over the other classes", "share", ge=0, lt=1)
    mixup_alpha: float = fixed(0.0, "of the Beta distribution of mixing; at 0 nothing is mixed", "number", ge=0, le=1000)
    cutmix_strength: float = fixed(0.0, "at 0 nothing is cut; else not with probability 1.55 x this - 0.96", "share", ge=0, le=1)


class AveragingConfig(Section):
    """Averages of the weights over epochs, which validation prefers."""

    averaging: Literal["none", "exponential", "mean"] = fixed("none", "of weights at the ends of epochs")
    averaging_decay: float = fixed(0.97, "per epoch, exponential", "factor", gt=0, lt=1)
    averaging_last: int = fixed(10, "at the end of the run, mean", "epochs", ge=1, le=1_000_000)


class IpuConfig(Section):
    """How IPUs run it."""

    machine: Machine = free("pod16", "for which splits are sought and costs estimated")
    pipeline_splits: Tuple[Text, ...] = fixed(
        (), "module paths that begin a new pipeline stage, such as blocks.2.1; auto: the best ones, by the cost model; none: one stage"
    )
    automatic_stages: int = fixed(2, "of the pipeline, that auto makes", "stages", ge=1, le=64)
    recomputation: bool = fixed(True, "compute activations again in the backward pass instead of keeping them")
    available_memory_proportion: Optional[Tuple[Share, ...]] = fixed(
        None, "of a tile's memory, for convolutions' temporaries: one, or one for each IPU; none: Poplar's default", "share", min_length=1
    )
    optimizer_state_off_chip: bool = fixed(False, "keep optimizer state in streaming memory")
    replicated_tensor_sharding: bool = fixed(False, "spread optimizer state over replicas")
    convolution_dithering: bool = fixed(False, "spread small convolutions over different tiles")

    @model_validator(mode="after")
    def _check_proportions(self) -> IpuConfig:
        shares = self.available_memory_proportion
        if shares is not None and len(shares) not in (1, self.stages):
            raise ValueError(
                f"available_memory_proportion takes 1 or {self.stages} values (one for each IPU of a replica), got {len(shares)}"
            )
        return self

    @property
    def stages(self) -> int:
        """Pipeline stages, one on each IPU of a replica."""
        return self.automatic_stages if self.pipeline_splits == AUTOMATIC_SPLITS else len(self.pipeline_splits) + 1


class RunConfig(Section):
    """What a run keeps and says."""

    seed: int = fixed(42, "of weights, data order, augmentation and the device", "number", ge=0, lt=2**63)
    output: Optional[Text] = free(None, "folder of the run; none: runs/PRESET-TIME")
    resume: Optional[Text] = free(None, "auto: the newest whole checkpoint under --output; or a checkpoint")
    fine_tune_from: Optional[Text] = free(None, "fine-tune this checkpoint or run folder, instead of training first")
    allow_change: Tuple[Text, ...] = free((), "fields that a resumed run may change")
    validate_every_epochs: Optional[int] = free(1, "between validations; none: at the end only", "epochs", ge=1, le=1_000_000)
    checkpoint_every_epochs: Optional[int] = free(None, "between checkpoints kept besides last and best", "epochs", ge=1, le=1_000_000)
    checkpoint_every_steps: Optional[int] = free(
        None, "between writes of last; none: at ends of epochs only", "updates", ge=1, le=1_000_000_000
    )
    log_every_steps: int = free(10, "between rows of training.csv and lines of a log", "updates", ge=1, le=1_000_000_000)
    wandb: bool = free(False, "log to Weights & Biases as well")
    wandb_project: Text = free("g16-efficientnet", "of Weights & Biases")
