"""CTC prefix beam search: the operation behind `poptorch.ctc_beam_search_decoder`."""

from __future__ import annotations

from collections import defaultdict
from typing import Dict, List, Sequence, Tuple

import numpy as np
import torch

from ..operators import define_operator

Path = Tuple[int, ...]


def _ctc_beam_search(
    probs: torch.Tensor, lengths: torch.Tensor, blank: int, beam_width: int, top_paths: int
) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    steps, batch, _ = probs.shape
    scores = torch.full((batch, top_paths), float("-inf"), dtype=torch.float32, device=probs.device)
    path_lengths = torch.zeros((batch, top_paths), dtype=torch.int32, device=probs.device)
    paths = torch.full((batch, top_paths, steps), blank, dtype=torch.int32, device=probs.device)
    if probs.is_meta:
        return scores, path_lengths, paths
    values = probs.detach().to("cpu", torch.float32).numpy()
    for index, length in enumerate(lengths.tolist()):
        for rank, (path, score) in enumerate(search(values[:length, index], blank, beam_width)[:top_paths]):
            scores[index, rank] = score
            path_lengths[index, rank] = len(path)
            if path:
                paths[index, rank, : len(path)] = torch.tensor(path, dtype=torch.int32)
    return scores, path_lengths, paths


define_operator(
    "ctc_beam_search(Tensor probs, Tensor lengths, int blank, int beam_width, int top_paths) -> (Tensor, Tensor, Tensor)",
    _ctc_beam_search,
)


def search(log_probs: np.ndarray, blank: int, beam_width: int) -> List[Tuple[Path, float]]:
    """Best label sequences of one sample with their log-probabilities, best first.

    Prefixes keep two log-probabilities, of all alignments that end in a blank and of those that do not (Graves, Supervised Sequence
    Labelling, 7.5.3): a repeated label extends the prefix only behind a blank.

    Args:
        log_probs: [steps, classes] log-probabilities.
    """
    none = float("-inf")
    beams: Dict[Path, Tuple[float, float]] = {(): (0.0, none)}
    for row in log_probs:
        following: Dict[Path, List[float]] = defaultdict(lambda: [none, none])
        for prefix, (in_blank, in_label) in beams.items():
            both = np.logaddexp(in_blank, in_label)
            for label, score in enumerate(row):
                if label == blank:
                    entry = following[prefix]
                    entry[0] = np.logaddexp(entry[0], both + score)
                    continue
                is_repeated = bool(prefix) and prefix[-1] == label
                extended = following[(*prefix, label)]
                extended[1] = np.logaddexp(extended[1], (in_blank if is_repeated else both) + score)
                if is_repeated:
                    entry = following[prefix]
                    entry[1] = np.logaddexp(entry[1], in_label + score)
        best = sorted(following.items(), key=lambda item: -_total(item[1]))[:beam_width]
        beams = {prefix: (scores[0], scores[1]) for prefix, scores in best}
    ranked = [(prefix, _total(scores)) for prefix, scores in beams.items()]
    return sorted(ranked, key=lambda item: -item[1])


def _total(scores: Sequence[float]) -> float:
    return float(np.logaddexp(scores[0], scores[1]))
