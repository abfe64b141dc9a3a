"""While a run goes on: its supervisor, and the lines that it leaves behind."""
