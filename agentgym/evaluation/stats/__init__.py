"""Statistics of evaluations: estimates per task, intervals over tasks and seeds, tests.

Episodes of one task resemble each other, so an interval that treats them as independent is far
too narrow. Every interval here therefore rests on tasks (or training seeds), never on episodes,
and two policies are compared on the same tasks, pair by pair.

Legend: M tasks, S training seeds.
"""
