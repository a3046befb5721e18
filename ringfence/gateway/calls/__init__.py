"""One call: the stages in order, and the exchange that passes through them."""
