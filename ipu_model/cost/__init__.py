"""What a program costs on IPUs: cycles, memory per tile, pipeline, images per second. Formulas and data, without torch."""

from __future__ import annotations
