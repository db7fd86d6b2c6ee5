"""Files that hold objects of the IPU Model: written whole or not at all, read with a check of what they are."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, Dict

import torch

from .errors import Error


def write_file(path: Path, file_format: str, content: Dict[str, Any]) -> None:
    """Write content with its format and the release of torch; `Error` for what cannot be pickled."""
    buffer = io.BytesIO()
    try:
        torch.save({"format": file_format, "torch": torch.__version__, **content}, buffer, pickle_protocol=4)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Error(
            f"{path.name} cannot be written: {error}. A class must be defined at the top level of a module; or pass export_model=False."
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(buffer.getvalue())
    partial.replace(path)


def read_file(path: Path, file_format: str) -> Dict[str, Any]:
    """Content of a file; `Error` when it is missing, of another format or of another release of torch."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)  # classes of the program's own, which it saved itself
    except FileNotFoundError as error:
        raise Error(f"There is no file {path}.") from error
    except Exception as error:  # noqa: BLE001  whatever the bytes are
        raise Error(f"{path} cannot be read as '{file_format}': {error}") from error
    if not isinstance(content, dict) or content.get("format") != file_format:
        raise Error(f"{path} is not of the format '{file_format}'.")
    if content["torch"] != torch.__version__:
        raise Error(f"{path} was made with torch {content['torch']}, this is {torch.__version__}: compile again.")
    return content
