"""Configs that are kept with runs and checkpoints, also those of earlier releases, which are read by field name."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Tuple

from .merging import merge
from .resolved import OVERLAY, SECTIONS, Config
from .sections import is_optional

# Before there was a section `validation`: what stood elsewhere, and where it is now.
_MOVED = {("data", "validation_image_size"): "image_size", ("batch", "validation_micro_batch_size"): "micro_batch_size"}
# At that time a second phase had fields of its own, and the rest was code.
_SECOND_PHASE: Dict[str, Tuple[str, str]] = {
    "fine_tune_epochs": ("schedule", "epochs"),
    "fine_tune_image_size": ("data", "image_size"),
    "fine_tune_layers": ("model", "trainable_layers"),
    "fine_tune_global_batch_size": ("batch", "global_batch_size"),
    "fine_tune_micro_batch_size": ("batch", "micro_batch_size"),
    "fine_tune_replicas": ("batch", "replicas"),
    "fine_tune_base_learning_rate": ("schedule", "base_learning_rate"),
    "fine_tune_warmup_epochs": ("schedule", "warmup_epochs"),
}
_SECOND_PHASE_CODE: Dict[str, Dict[str, Any]] = {
    "data": {"preprocessing": "validation"},
    "validation": {"image_size": None},
    "batch": {"device_iterations": 1},
    "schedule": {"schedule": "cosine"},
    "averaging": {"averaging": "none"},
    "ipu": {"pipeline_splits": []},
}
# What was computed before a field existed, where that is not the field's default.
_BEFORE_THE_FIELD: Dict[str, Dict[str, Any]] = {"model": {"proxy_norm_scale": "everywhere"}}


def plain_values(config: Config) -> Dict[str, Any]:
    """A config as a YAML file or a checkpoint keeps it: `preset`, and sections of numbers, texts, bools, lists and None."""
    return {"preset": config.preset, **_plain(sections_of(config))}


def sections_of(config: Config) -> Dict[str, Any]:
    """All values by section and field, what the second phase states included."""
    return {**{name: getattr(config, name).model_dump() for name in SECTIONS}, OVERLAY: config.fine_tune}


def current_sections(stored: Mapping[str, Any]) -> Dict[str, Any]:
    """The sections of a stored config in today's form."""
    sections = merge(_BEFORE_THE_FIELD, {name: dict(values) for name, values in stored.items() if name != "preset"})
    return sections if "validation" in sections else _from_first_release(sections)


def _from_first_release(sections: Dict[str, Any]) -> Dict[str, Any]:
    """Where nothing stated was 0 or empty, and a second phase was a section of flat fields."""
    sections["validation"] = {}
    for (section, field), name in _MOVED.items():
        sections["validation"][name] = sections.get(section, {}).pop(field, None) or None
    flat = sections.pop(OVERLAY, {})
    for name, section in SECTIONS.items():
        for field, info in section.model_fields.items():
            if is_optional(info.annotation) and not sections.get(name, {}).get(field, True):
                sections[name][field] = None
    if not flat.get("fine_tune_epochs"):
        return sections
    overlay = _second_phase(flat)
    if len(sections.get("ipu", {}).get("available_memory_proportion") or ()) > 1:  # of the IPUs of another pipeline
        overlay = merge(overlay, {"ipu": {"available_memory_proportion": None}})
    return {**sections, OVERLAY: overlay}


def _second_phase(flat: Mapping[str, Any]) -> Dict[str, Any]:
    overlay: Dict[str, Any] = {}
    for name, value in flat.items():
        section, field = _SECOND_PHASE[name]
        overlay.setdefault(section, {})[field] = value
    return merge(_SECOND_PHASE_CODE, overlay)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
