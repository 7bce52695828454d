"""What a model costs on the machine at hand: size, work, time and memory.

Every measurement is a process of its own, so that peaks of memory do not mix. Those processes
import from here, hence this file imports nothing.
"""
