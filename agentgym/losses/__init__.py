"""What is minimised: surrogates, how losses compose, and reductions over the vocabulary."""
