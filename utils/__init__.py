"""Romanian contextual question answering with LoRA: the small package behind the notebooks.

The modules follow one row of data on its way to one cell of a table:
data, prompt, training, generation, metrics, records, tables and plots.
"""
