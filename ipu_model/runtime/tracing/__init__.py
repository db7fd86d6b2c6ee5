"""From a wrapped model to op records and the cost model."""
