"""What `python -m ipu_model` is made of: running a program as Python does, and making poptorch known to an environment."""
