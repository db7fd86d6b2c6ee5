"""What forward means on the device: the functions called inside of it, and how torch's behave there."""
