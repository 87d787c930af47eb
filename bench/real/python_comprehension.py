"""Comprehensions over numbers, tuples, strings, sets and dictionaries: many small objects that live for a moment."""

ROUNDS = 30
SIZE = 20000

total = 0
for turn in range(ROUNDS):
    pairs = [(i, i * turn) for i in range(SIZE)]
    texts = [f"{a}:{b}" for a, b in pairs if a % 3]
    lengths = {text: len(text) for text in texts}
    parts = [text.split(":") for text in texts]
    squares = {int(a) ** 2 + turn for a, _ in parts}
    nested = [[j * 1.5 for j in range(i % 7)] for i in range(SIZE // 2)]
    total += sum(lengths.values()) + sum(squares) % 1000003 + int(sum(sum(row) for row in nested))
print(total)
