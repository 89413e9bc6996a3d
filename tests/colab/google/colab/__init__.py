"""A stand-in for Colab's own module: it makes in_colab() true, and its Drive is a folder."""
