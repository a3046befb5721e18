"""Components of the stacks: one `ComponentResource` per file, in a folder per domain of controls.

A component declares resources; `ringfence.cloud` computes what they contain.
"""
