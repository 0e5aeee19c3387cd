"""Speed of the training mappers: inputs of realistic kinds, a plain reference, its comparison."""
