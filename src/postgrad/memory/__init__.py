"""What experience leaves behind: lessons inside a run, and from finished runs a prior for later ones.

`lessons.py` words what an experiment showed. `effects.py` measures what each kind of change brought in a run,
`entries.py` says what of that may be kept, `book.py` keeps it in a file of the user, and `prior.py` makes a belief of
it. Nothing here knows a recipe, a row or a label.
"""

from postgrad.memory.lessons import lesson_of

__all__ = ["lesson_of"]
