"""What options are made of: stores of checked values, their groups, and files."""
