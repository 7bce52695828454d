"""The modelfile room."""
