"""When: the loop, optimizers, schedules, checkpoints, averages, metrics and logs."""
