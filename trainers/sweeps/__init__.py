"""Many runs: the paper's tables at any scale, and the toy recipes."""
