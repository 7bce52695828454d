"""Benchmarks: what a model costs on the machine at hand, and what other tools cost for the job.

Every measurement is a child process, so that peaks of memory do not mix. The children import from
here, hence this file imports nothing.
"""
