"""The augmentation room."""
