"""Recipes: one YAML file per published experiment, and a few of our own."""
