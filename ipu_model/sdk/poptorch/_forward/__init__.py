"""The functions that a program calls inside of forward."""
