"""The proof that both frameworks compute the same thing: same weights, same batches, every step."""
