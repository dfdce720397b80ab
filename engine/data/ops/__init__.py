"""Data-Juicer's filters: what each of them reads, gives, takes and needs."""
