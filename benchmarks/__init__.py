"""How fast Tandem's data path is, beside others', in one run on one machine: ``make bench``."""
