"""The steps of one layer of each kind; `approaches.layers.StackSteps` drives them."""
