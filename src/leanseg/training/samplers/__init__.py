"""Samplers: which places of which cases an epoch sees."""
