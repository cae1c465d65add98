"""A student and its assistant, who learns what the student missed, behind one index.

Residual knowledge distillation (Gao et al., 2020): S learns from the teacher and is frozen, A learns t - s_S, and S + A
serves. Scores of inner products add up when vectors stand side by side, <[u_S; u_A], [v_S; v_A]> = s_S + s_A, and the
first dimensions alone are the smaller student: one index serves both widths. Vectors are those whose inner product is
the score that is meant: a model of cosines is given with its temperature in its users.
"""

from __future__ import annotations

import numpy as np

from recdistill.gains.paired import beside
from recdistill.start import principal
from recdistill.types import Vectors


def joined(student: Vectors, assistant: Vectors) -> Vectors:
    """Return [u_S; u_A] [U,Ds+Da] and [v_S; v_A] [I,Ds+Da], whose inner product is the sum of both scores.

    The first Ds columns of each side are the student, bit for bit. ValueError if rows differ in number.
    """
    return beside(student, assistant)


def left_to_teach(teacher: Vectors, student: Vectors) -> Vectors:
    """Return [h; -u_S] [U,Dt+Ds] and [w; v_S] [I,Dt+Ds], whose inner product is what is left, t - s_S.

    So an assistant has a teacher like any other, and no table of users times items is ever there. ValueError if rows
    differ in number.
    """
    return beside(teacher, Vectors(users=-np.asarray(student.users, np.float32), items=student.items))


def best_assistant(teacher: Vectors, student: Vectors, dim: int) -> Vectors:
    """Return the assistant of at most `dim` dimensions that comes nearest to t - s_S in squares, over all pairs.

    What is left has its mean over items taken out of each user's row, which orders nothing (see `principal`). After a
    student that is itself the nearest of its width to such rows, both together are the nearest of their joint width
    (Eckart & Young, 1936): going step by step loses nothing. Rows without any vector stay zeros.
    """
    users, items = principal(left_to_teach(teacher, student), dim)
    return Vectors(users=users(0, len(teacher.users)).numpy(), items=items(0, len(teacher.items)).numpy())
