"""The arms (measured numbers, networks), the table of their names, and the stack that combines them."""
