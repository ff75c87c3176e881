"""What runs the method and knows nothing of it: the cache and its fingerprints, locks, how much
memory there is, workers, and what every estimator's fit shares (all or nothing, progress).
"""
