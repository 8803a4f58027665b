"""What finished runs say: reports, comparisons with the paper and with one another."""
