"""The paper's claims run again, each beside the controls that it needs.

``python -m benchmarks.reproduction.NAME --help``, from the root of the repository. Every script
appends its raw numbers to a file of ``results/`` and starts again where it stopped.
"""
