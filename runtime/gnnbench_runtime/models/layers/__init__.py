"""One layer of each kind, forward and backward; `models.stack.Stack` drives them."""
