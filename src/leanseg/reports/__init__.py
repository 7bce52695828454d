"""Reports: a run or the check of a dataset as one HTML file, and studies of a network."""
