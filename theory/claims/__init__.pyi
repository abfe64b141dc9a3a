from .ledger import (
    Author as Author,
    Claim as Claim,
    Finding as Finding,
    Verdict as Verdict,
    claim as claim,
)
from .rows import (
    LEDGER as LEDGER,
)
