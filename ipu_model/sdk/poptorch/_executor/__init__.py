"""The parts that PoplarExecutor is composed of."""
