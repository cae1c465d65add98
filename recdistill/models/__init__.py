"""Models: encoders give vectors, the ranker scores pairs; none of them sees a configuration object."""
