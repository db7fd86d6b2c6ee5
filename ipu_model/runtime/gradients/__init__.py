"""Gradients: accumulated, reduced over replicas and instances, scaled."""
