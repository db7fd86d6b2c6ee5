"""How the device runs a model: sections of the config to poptorch.Options and block annotations."""
