"""Which part of a model runs on which IPU: blocks, stages, phases, execution strategies."""
