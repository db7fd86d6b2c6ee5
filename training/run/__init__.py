"""One run on the disk and on the screen."""

from .checkpoint import BEST as BEST, LAST as LAST
from .keeping import Run as Run
