"""The device: its layout of data, state, random numbers, update rules, and the loop that runs a call."""
