"""The ledger: every claim of the paper, judged by computation. One module per appendix, one function per row."""
