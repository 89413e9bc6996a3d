"""A stand-in for Colab's own module: it makes in_colab() true; Drive is a folder, a secret an environment variable."""
