"""What makes a program run: capture, replay, precision, reduction, weight update."""
