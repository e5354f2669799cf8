"""The lesson: `lesson.md` is the source, and `lesson.ipynb` is made of it and has the outputs.

`mnist37 lesson` copies the notebook and opens it. `make lesson` makes it.
"""
