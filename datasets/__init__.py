"""What is fed: files and arrays to uint8 images on the host."""
