"""Compiled models as files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from ipu_model.runtime.errors import Error
from ipu_model.runtime.files import read_file, write_file

from ..enums import ConnectionType
from ..options import Options
from .device_weights import DeviceWeights

logger = logging.getLogger("poptorch::python")
_FORMAT = "IPU Model executable, version 1"


class Executables(DeviceWeights):
    """The part of an executor that writes and reads compiled models."""

    compile: Callable[..., None]
    _set_executable: Callable[..., None]
    _inputs_at_compile: Any
    _placement: Any

    def save(self, filename: str, export_model: bool = True, save_rng_state: bool = True) -> None:
        """Write the compiled model to a file; `export_model` adds the user's model and optimizer, for `poptorch.load`."""
        self._need_compiled("save")
        path = Path(filename)
        if path.is_dir():
            path = path / "model.poptorch"
            logger.warning("%s is a folder: saving to %s", filename, path)
        content: Dict[str, Any] = {
            "captured": self._executable,
            "placement": self._placement,
            "inputs": self._inputs_at_compile,
            "trainable": self._trainable_names,
            "shapes": self._state_shapes(),
            "rng_state": self.rng_state if save_rng_state else None,
            "training": self._training,
            "options": self._options,
        }
        if export_model:
            content["model"] = self._user_model
            content["optimizer"] = self._optimizer if self._training else None
            content["optimizer_state"] = self._optimizer.state_dict() if self._training and self._optimizer is not None else None
        write_file(path, _FORMAT, content)

    def compileAndExport(self, filename: str, *args: Any, export_model: bool = True, **kwargs: Any) -> None:
        """`compile(*args, **kwargs)` and `save(filename)`."""
        self.compile(*args, **kwargs)
        self.save(filename, export_model)

    def loadExecutable(self, filename: str) -> None:
        """Take the compiled model from a file of the same model instead of compiling.

        Raises:
            Error: not such a file, another version of torch, or a model with other parameters.
        """
        self._take(read_file(Path(filename), _FORMAT), filename)

    def _take(self, content: Dict[str, Any], filename: str) -> None:
        if content["training"] != self._training:
            raise Error(f"{filename} is of a {'training' if content['training'] else 'inference'} model, this is the other kind.")
        if content["shapes"] != self._state_shapes():
            raise Error(f"{filename} is of a model with other parameters or buffers than this one.")
        self._placement, self._inputs_at_compile = content["placement"], content["inputs"]
        self._trainable_names, self._rng_state = content["trainable"], content["rng_state"]
        self._set_executable(content["captured"], None)
        if self._options.connection_type == ConnectionType.Always:
            self.attachToDevice()

    def _state_shapes(self) -> Dict[str, Any]:
        tensors = [*self._model.named_parameters(), *self._model.named_buffers()]
        return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors}


def load(filename: str, edit_opts_fn: Optional[Callable[[Options], None]] = None) -> Any:
    """An executor from a file saved with its model; `edit_opts_fn(options)` may change the options first.

    Raises:
        AssertionError: saved without the model (use `loadExecutable` on a wrapped model), or by another version.
        Error: not such a file.
    """
    from .._poplar_executor import PoplarExecutor

    content = read_file(Path(filename), _FORMAT)
    assert "model" in content, f"{filename} was saved with export_model=False: wrap the model and call loadExecutable({filename!r})"
    options = content["options"].clone()
    options._unfreeze()
    options.deleteIfExists("ipu_version")
    options.connectionType(ConnectionType.Always)
    if edit_opts_fn is not None:
        edit_opts_fn(options)
    optimizer = content["optimizer"]
    executor = PoplarExecutor(content["model"], options, content["training"], optimizer)
    if content["optimizer_state"] is not None and "ipu_state" in content["optimizer_state"]:
        optimizer.load_state_dict(content["optimizer_state"])
    executor._take(content, filename)
    return executor
