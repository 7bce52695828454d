"""What a step of training means, one file each."""
