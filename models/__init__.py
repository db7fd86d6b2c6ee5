"""What is computed: uint8 images in, loss or logits out."""
