"""What `python -m ipu_model.poprun` is made of: its flags, where instances run, one agent on each host, and the instances themselves."""
